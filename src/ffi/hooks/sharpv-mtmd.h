// The call sites that the patches put into mtmd. Included and defined as those of sharpv-llama.h.

#pragma once

// The edge that an image is scaled to before it is cut into tiles: `longest_edge`, or the side of one tile where the
// thread wants images whole.
int sharpv_longest_edge(int longest_edge, int tile_size);
