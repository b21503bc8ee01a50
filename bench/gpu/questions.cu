/* What the design asked of a first hour on GPUs and no op, test or table answers: a line per question, exit 1 when one failed.
 *   questions
 * 1. Do FP8 products take negative factors per row (CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F)? A gate could then ride on them.
 * 2. What does a conditional node cost in a recorded step, taken and not, and may its body store into another device's memory?
 * 3. What does the host pay for starting a recorded step of 1000 kernels, and the device per kernel?
 * 4. How long does a barrier of all devices take by flags in each other's memory?
 * Devices as they are: no setting is changed. */
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>

namespace
{

int failed;

bool good(cudaError_t e, const char *what)
{
    if (e == cudaSuccess) return true;
    printf("%s: FAILED: %s\n", what, cudaGetErrorString(e));
    (void)cudaGetLastError();
    failed = 1;
    return false;
}
#define CUDA(call)                                                                                           \
    do {                                                                                                     \
        if (!good(call, #call)) return;                                                                      \
    } while (0)

template <class T> T median(std::vector<T> v)
{
    std::sort(v.begin(), v.end());
    return v[v.size() / 2];
}

/* ---- 1: FP8 with factors of both signs ---- */

struct product {
    cublasLtHandle_t lt;
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t w, x, y;
    cublasLtMatmulPreference_t want;
    cublasLtMatmulHeuristicResult_t found;
};

/* y[m, n] = x[m, k] w[n, k]^T, a factor per row of w and of x */
cublasStatus_t plan(product *p, int m, int n, int k, const float *w_factor, const float *x_factor)
{
    const cublasOperation_t t = CUBLAS_OP_T;
    const cublasLtMatmulMatrixScale_t by_row = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
    int got = 0;
    cublasStatus_t s = cublasLtCreate(&p->lt);
    if (!s) s = cublasLtMatmulDescCreate(&p->op, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    const auto set = [&](cublasLtMatmulDescAttributes_t what, const void *value, size_t bytes) {
        if (!s) s = cublasLtMatmulDescSetAttribute(p->op, what, value, bytes);
    };
    set(CUBLASLT_MATMUL_DESC_TRANSA, &t, sizeof t);
    set(CUBLASLT_MATMUL_DESC_A_SCALE_MODE, &by_row, sizeof by_row);
    set(CUBLASLT_MATMUL_DESC_B_SCALE_MODE, &by_row, sizeof by_row);
    set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &w_factor, sizeof w_factor);
    set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &x_factor, sizeof x_factor);
    if (!s) s = cublasLtMatrixLayoutCreate(&p->w, CUDA_R_8F_E4M3, (uint64_t)k, (uint64_t)n, k);
    if (!s) s = cublasLtMatrixLayoutCreate(&p->x, CUDA_R_8F_E4M3, (uint64_t)k, (uint64_t)m, k);
    if (!s) s = cublasLtMatrixLayoutCreate(&p->y, CUDA_R_16BF, (uint64_t)n, (uint64_t)m, n);
    if (!s) s = cublasLtMatmulPreferenceCreate(&p->want);
    if (!s)
        s = cublasLtMatmulAlgoGetHeuristic(p->lt, p->op, p->w, p->x, p->y, p->y, p->want, 1, &p->found, &got);
    return s ? s : got ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

void fp8_factors()
{
    enum { M = 128, N = 256, K = 512 };
    std::vector<__nv_fp8_e4m3> w(N * K), x(M * K);
    std::vector<float> wf(N), xf(M);
    std::vector<__nv_bfloat16> y(M * N);
    srand(1);
    const auto draw = [] { return (float)(rand() % 2001 - 1000) / 1000; };
    for (auto &v : w) v = __nv_fp8_e4m3(draw());
    for (auto &v : x) v = __nv_fp8_e4m3(draw());
    for (int i = 0; i < N; i++) wf[i] = (i % 3 ? 1.0f : -1.0f) * (0.5f + (float)i / N);
    for (int i = 0; i < M; i++) xf[i] = (i % 2 ? 1.0f : -1.0f) * (0.5f + (float)i / M);
    char *at;
    const size_t w_bytes = w.size(), x_bytes = x.size(), y_bytes = y.size() * 2;
    CUDA(cudaMalloc((void **)&at, w_bytes + x_bytes + y_bytes + (N + M) * sizeof(float)));
    char *const dx = at + w_bytes, *const dy = dx + x_bytes;
    float *const dwf = (float *)(dy + y_bytes), *const dxf = dwf + N;
    CUDA(cudaMemcpy(at, w.data(), w_bytes, cudaMemcpyHostToDevice));
    CUDA(cudaMemcpy(dx, x.data(), x_bytes, cudaMemcpyHostToDevice));
    CUDA(cudaMemcpy(dwf, wf.data(), sizeof(float) * N, cudaMemcpyHostToDevice));
    CUDA(cudaMemcpy(dxf, xf.data(), sizeof(float) * M, cudaMemcpyHostToDevice));
    product p = {};
    const float one = 1, zero = 0;
    cublasStatus_t s = plan(&p, M, N, K, dwf, dxf);
    if (!s)
        s = cublasLtMatmul(p.lt, p.op, &one, at, p.w, dx, p.x, &zero, dy, p.y, dy, p.y, &p.found.algo,
                           nullptr, 0, nullptr);
    if (s) {
        printf("1. FP8 with a factor per row: not taken here: %s\n", cublasLtGetStatusString(s));
        return;
    }
    CUDA(cudaMemcpy(y.data(), dy, y_bytes, cudaMemcpyDeviceToHost));
    double worst = 0, largest = 0;
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) {
            double sum = 0;
            for (int k = 0; k < K; k++) sum += (double)(float)x[i * K + k] * (double)(float)w[j * K + k];
            sum *= (double)xf[i] * wf[j];
            worst = std::max(worst, std::fabs(sum - (double)__bfloat162float(y[i * N + j])));
            largest = std::max(largest, std::fabs(sum));
        }
    const bool right = worst <= 0.005 * largest; /* a rounding to bf16 is 0.004 at most */
    failed |= !right;
    printf("1. FP8 with factors of both signs per row, %d x %d x %d: %s, off by %.4f of the largest\n", M, N,
           K, right ? "right" : "WRONG", worst / largest);
}

/* ---- 2 and 3: recorded steps ---- */

__global__ void decide(cudaGraphConditionalHandle handle, const int *yes)
{
    cudaGraphSetConditional(handle, (unsigned)*yes);
}
__global__ void look(const int *yes, int *seen)
{
    *seen = *yes;
}
__global__ void count(int *near, int *far)
{
    (void)atomicAdd(near, 1);
    *far = *near;
    __threadfence_system();
}

enum { NODES = 100, PLAYS = 50 };
enum kind { PLAIN, ASKED };

/* NODES times: look or decide, then count, in a conditional node's body if asked. */
bool record(kind k, int *yes, int *near, int *far, cudaGraphExec_t *out)
{
    cudaGraph_t graph;
    cudaGraphNode_t last = nullptr;
    if (!good(cudaGraphCreate(&graph, 0), "cudaGraphCreate")) return false;
    const auto add = [&](cudaGraph_t to, const void *kernel, void **args, cudaGraphNode_t *node, bool after) {
        cudaKernelNodeParams p = {};
        p.func = (void *)kernel;
        p.gridDim = p.blockDim = dim3(1);
        p.kernelParams = args;
        return good(cudaGraphAddKernelNode(node, to, after && last ? &last : nullptr, after && last, &p),
                    "a kernel's node");
    };
    void *counted[] = {&near, &far};
    for (int i = 0; i < NODES; i++) {
        cudaGraphNode_t node;
        if (k == PLAIN) {
            void *args[] = {&yes, &near};
            if (!add(graph, (const void *)look, args, &node, true)) return false;
            last = node;
            if (!add(graph, (const void *)count, counted, &node, true)) return false;
            last = node;
            continue;
        }
        cudaGraphConditionalHandle handle;
        if (!good(cudaGraphConditionalHandleCreate(&handle, graph, 0, 0), "a condition")) return false;
        void *args[] = {&handle, &yes};
        if (!add(graph, (const void *)decide, args, &node, true)) return false;
        last = node;
        cudaGraphNodeParams p = {};
        p.type = cudaGraphNodeTypeConditional;
        p.conditional.handle = handle;
        p.conditional.type = cudaGraphCondTypeIf;
        p.conditional.size = 1;
        if (!good(cudaGraphAddNode(&node, graph, &last, nullptr, 1, &p), "a conditional node")) return false;
        last = node;
        if (!add(p.conditional.phGraph_out[0], (const void *)count, counted, &node, false)) return false;
    }
    return good(cudaGraphInstantiate(out, graph, 0), "cudaGraphInstantiate") &&
           good(cudaGraphDestroy(graph), "cudaGraphDestroy");
}

/* Median microseconds of a play on the device, and of starting it on the host. */
bool play(cudaGraphExec_t graph, double *device_us, double *host_us)
{
    std::vector<double> device, host;
    cudaEvent_t begin, end;
    if (!good(cudaEventCreate(&begin), "an event") || !good(cudaEventCreate(&end), "an event")) return false;
    for (int i = 0; i < PLAYS; i++) {
        float ms;
        (void)cudaEventRecord(begin);
        const auto before = std::chrono::steady_clock::now();
        if (!good(cudaGraphLaunch(graph, nullptr), "cudaGraphLaunch")) return false;
        host.push_back(
            std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - before).count());
        (void)cudaEventRecord(end);
        if (!good(cudaEventSynchronize(end), "a play") ||
            !good(cudaEventElapsedTime(&ms, begin, end), "a play's time"))
            return false;
        device.push_back(ms * 1e3);
    }
    *device_us = median(device), *host_us = median(host);
    return true;
}

void conditions(int devices)
{
    int *yes, *near, *far, counted = 0, there = 0, on = 1;
    CUDA(cudaSetDevice(0));
    CUDA(cudaMalloc((void **)&yes, 3 * sizeof *yes));
    near = yes + 1, far = yes + 2;
    if (devices > 1) {
        CUDA(cudaDeviceEnablePeerAccess(1, 0));
        CUDA(cudaSetDevice(1));
        CUDA(cudaMalloc((void **)&far, sizeof *far));
        CUDA(cudaSetDevice(0));
    }
    CUDA(cudaMemset(near, 0, sizeof *near));
    cudaGraphExec_t plain, asked;
    double us[3], host;
    if (!record(PLAIN, yes, near, far, &plain) || !record(ASKED, yes, near, far, &asked)) return;
    CUDA(cudaMemcpy(yes, &on, sizeof on, cudaMemcpyHostToDevice));
    if (!play(asked, &us[1], &host)) return;
    CUDA(cudaMemcpy(&counted, near, sizeof counted, cudaMemcpyDeviceToHost));
    CUDA(cudaMemcpy(&there, far, sizeof there, cudaMemcpyDeviceToHost));
    const bool right = counted == NODES * PLAYS && there == counted;
    CUDA(cudaMemset(yes, 0, sizeof *yes));
    if (!play(asked, &us[2], &host) || !play(plain, &us[0], &host)) return;
    failed |= !right;
    printf("2. a conditional node: %.2f us taken, %.2f us not taken; two kernels without one %.2f us; its "
           "body stores into %s: %s\n",
           us[1] / NODES, us[2] / NODES, us[0] / NODES,
           devices > 1 ? "another device's memory" : "its own memory (one device)",
           right ? "right" : "WRONG");
    std::vector<double> starts, plays;
    double device;
    cudaGraph_t graph;
    cudaStream_t stream;
    CUDA(cudaStreamCreate(&stream));
    CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < 1000; i++) look<<<1, 1, 0, stream>>>(yes, near);
    CUDA(cudaStreamEndCapture(stream, &graph));
    CUDA(cudaGraphInstantiate(&plain, graph, 0));
    if (!play(plain, &device, &host)) return;
    printf("3. a recorded step of 1000 small kernels: %.0f us of the host to start it, %.2f us of the device "
           "per kernel\n",
           host, device / 1000);
}

/* ---- 4: a barrier of all devices ---- */

enum { MOST = 16, ROUNDS = 2000 };
struct flags {
    unsigned *of[MOST];
};

/* One warp per device: lane r tells device r, and waits for it, at most a second in all. */
__global__ void meet(flags f, int me, int n, unsigned long long *ns)
{
    const int r = (int)threadIdx.x;
    unsigned long long begin, now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(begin));
    now = begin;
    for (unsigned round = 1; round <= ROUNDS; round++) {
        if (r < n) {
            asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(f.of[r] + me), "r"(round) : "memory");
            unsigned seen = 0;
            while (seen < round && now - begin < 1000000000ull) {
                asm volatile("ld.acquire.sys.global.u32 %0, [%1];"
                             : "=r"(seen)
                             : "l"(f.of[me] + r)
                             : "memory");
                asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
            }
        }
        __syncwarp();
        if (round == 1)
            asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(begin)); /* devices start at different times */
    }
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    if (r == 0) *ns = now - begin;
}

void barrier(int devices)
{
    flags f = {};
    unsigned long long ns, *took[MOST];
    const int n = devices < (int)MOST ? devices : (int)MOST;
    for (int d = 0; d < n; d++) {
        CUDA(cudaSetDevice(d));
        for (int other = 0; other < n; other++)
            if (other != d && cudaDeviceEnablePeerAccess(other, 0) != cudaSuccess)
                (void)cudaGetLastError(); /* it is already */
        CUDA(cudaMalloc((void **)&f.of[d], MOST * sizeof(unsigned)));
        CUDA(cudaMemset(f.of[d], 0, MOST * sizeof(unsigned)));
        CUDA(cudaMalloc((void **)&took[d], sizeof ns));
        CUDA(cudaDeviceSynchronize());
    }
    for (int d = 0; d < n; d++) {
        CUDA(cudaSetDevice(d));
        meet<<<1, 32>>>(f, d, n, took[d]);
        CUDA(cudaGetLastError());
    }
    for (int d = 0; d < n; d++) {
        CUDA(cudaSetDevice(d));
        CUDA(cudaDeviceSynchronize());
    }
    CUDA(cudaMemcpy(&ns, took[n - 1], sizeof ns, cudaMemcpyDeviceToHost));
    const bool met = ns < 1000000000ull;
    failed |= !met;
    printf("4. a barrier of %d devices by flags in each other's memory: %.2f us%s\n", n,
           (double)ns / 1e3 / (ROUNDS - 1), met ? "" : ": NOT MET");
}

} // namespace

int main()
{
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
        printf("no GPU on this machine\n");
        return 77;
    }
    fp8_factors();
    conditions(devices);
    if (devices > 1)
        barrier(devices);
    else
        printf("4. a barrier of devices: there is one\n");
    return failed;
}
