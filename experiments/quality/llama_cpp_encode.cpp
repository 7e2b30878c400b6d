// What llama.cpp makes of a picture: mmproj.gguf, the pixels, and the file for the features.
//
// The pixels are width and height as 32 bit integers, and then 32 bit floats, normalised, one
// picture row after the other, red, green and blue of each pixel. The features are 32 bit floats.

#include "clip.h"
#include "clip-impl.h"

#include <cstdio>
#include <fstream>
#include <vector>

int main(int argc, char ** argv) {
    if (argc != 4) {
        std::fprintf(stderr, "usage: %s MMPROJ PIXELS FEATURES\n", argv[0]);
        return 2;
    }
    clip_context_params params = {};
    params.use_gpu = false;
    params.flash_attn_type = CLIP_FLASH_ATTN_TYPE_DISABLED;
    params.image_min_tokens = -1;
    params.image_max_tokens = -1;
    clip_ctx * context = clip_init(argv[1], params).ctx_v;
    if (context == nullptr) {
        std::fprintf(stderr, "llama.cpp does not read %s\n", argv[1]);
        return 1;
    }
    std::ifstream pixels(argv[2], std::ios::binary);
    int size[2] = {};
    pixels.read(reinterpret_cast<char *>(size), sizeof(size));
    std::vector<float> values((size_t) size[0] * size[1] * 3);
    pixels.read(reinterpret_cast<char *>(values.data()), values.size() * sizeof(float));
    if (!pixels) {
        std::fprintf(stderr, "%s ends early\n", argv[2]);
        return 1;
    }
    clip_image_f32 image;
    image.set_size({size[0], size[1]}, false, false);
    image.cpy_buf(values);
    std::vector<float> features((size_t) clip_n_output_tokens(context, &image) * clip_n_mmproj_embd(context));
    if (!clip_image_encode(context, 1, &image, features)) {
        std::fprintf(stderr, "llama.cpp could not encode the picture\n");
        return 1;
    }
    std::ofstream out(argv[3], std::ios::binary);
    out.write(reinterpret_cast<const char *>(features.data()), features.size() * sizeof(float));
    clip_free(context);
    return out ? 0 : 1;
}
