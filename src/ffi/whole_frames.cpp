// Tokenizing frames without cutting them into tiles: the hook in mtmd's preprocessing, and the function that uses it.

#include "guard.h"

#include "hooks/sharpv-mtmd.h"

namespace {

thread_local bool wanted = false;

// While it lives, this thread does not cut images into tiles.
struct whole_frames_scope {
    explicit whole_frames_scope(bool on) { wanted = on; }
    ~whole_frames_scope() { wanted = false; }
};

} // namespace

int sharpv_longest_edge(int longest_edge, int tile_size) { return wanted ? tile_size : longest_edge; }

int32_t sharpv_try_mtmd_tokenize_from_parts(
        const mtmd_context * ctx, mtmd_input_chunks * output, const mtmd_input_part * const * parts,
        size_t n_parts, bool add_special, bool whole_frames,
        int32_t * result, char * err, size_t err_len) {
    return sharpv_guarded(err, err_len, [&] {
        const whole_frames_scope scope(whole_frames);
        *result = mtmd_tokenize_from_parts(ctx, output, parts, n_parts, add_special);
    });
}
