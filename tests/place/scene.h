/* The second half of t_place. */
#ifndef FX_TESTS_PLACE_SCENE_H
#define FX_TESTS_PLACE_SCENE_H

void check_scenes(void);

#endif
