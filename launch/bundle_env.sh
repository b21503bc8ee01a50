# shellcheck shell=bash
# The environment of a bundle (bundle.sh): programs, headers and libraries of its packages come first. Source it in bash:
#   . ./env.sh
# Sets FLUXPAR_CMAKE to flags for CMake: cuDNN and NCCL from Python's nvidia packages, where CUDA and those are.
fx_root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
fx_lib=$(echo "$fx_root"/usr/lib/*-linux-gnu)
export PATH="$fx_root/usr/bin:$PATH"
export LD_LIBRARY_PATH="$fx_lib:$fx_lib/openmpi/lib:$fx_lib/pmix2/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
fx_own=$(echo "$fx_root"/usr/include/*-linux-gnu) # headers of one architecture
export CPATH="$fx_root/usr/include:$fx_own${CPATH:+:$CPATH}"
export LIBRARY_PATH="$fx_lib${LIBRARY_PATH:+:$LIBRARY_PATH}"
# pkg-config sees the packages and nothing else: their files say /usr, which this puts in front of
export PKG_CONFIG_SYSROOT_DIR="$fx_root" PKG_CONFIG_LIBDIR="$fx_lib/pkgconfig:$fx_root/usr/share/pkgconfig"
unset PKG_CONFIG_PATH
# where MPI, PMIx and what they load look for their own files
export OPAL_PREFIX="$fx_root/usr" PMIX_INSTALL_PREFIX="$fx_lib/pmix2" MPI_HOME="$fx_root/usr"
if [ "$(id -u)" = 0 ]; then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi

FLUXPAR_CMAKE="-DFX_ONEDNN=AUTO -DMPI_C_COMPILER=$fx_root/usr/bin/mpicc"
if command -v nvcc >/dev/null || [ -x /usr/local/cuda/bin/nvcc ]; then
    command -v nvcc >/dev/null || export PATH="$PATH:/usr/local/cuda/bin"
    FLUXPAR_CMAKE+=" -DFX_CUDA=AUTO"
    for fx_name in cudnn nccl; do
        fx_dir=$(python3 -c "import nvidia.$fx_name as m; print(list(m.__path__)[0])" 2>/dev/null) || continue
        FLUXPAR_CMAKE+=" -DFX_${fx_name^^}_ROOT=$fx_dir"
        export LD_LIBRARY_PATH="$LD_LIBRARY_PATH:$fx_dir/lib"
    done
fi
export FLUXPAR_CMAKE
unset fx_root fx_lib fx_own fx_name fx_dir
