// Hooks that the patches call in mtmd. They are included and defined in the same way as those in sharpv-llama.h.

#pragma once

// The edge that an image is scaled to before it is cut into tiles: `longest_edge`, or the side of one tile if the
// thread wants no tiles.
int sharpv_longest_edge(int longest_edge, int tile_size);
