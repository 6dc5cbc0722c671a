// Frames of videos are not cut into tiles: the call site in mtmd's preprocessing, and the switch.

#include "shim.h"

#include "hooks/sharpv-mtmd.h"

namespace {

thread_local bool wanted = false;

} // namespace

void sharpv_want_whole_frames(bool on) { wanted = on; }

int sharpv_longest_edge(int longest_edge, int tile_size) { return wanted ? tile_size : longest_edge; }
