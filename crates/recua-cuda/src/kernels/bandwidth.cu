// Reads memory and keeps nothing: 8 loads of 16 bytes under way a thread. What is read is zero, so nothing is ever written; the compiler
// cannot know.

struct Params {
    const uint4* src;
    unsigned int* sink;
    unsigned long long n_vectors;
};

constexpr int LOADS = 8;

extern "C" __global__ void __launch_bounds__(512, 2) bandwidth(const __grid_constant__ Params params) {
    unsigned long long n = params.n_vectors;
    unsigned long long step = gridDim.x * (unsigned long long)blockDim.x;
    unsigned int sum = 0;
    // A multiple of LOADS * step is read; the host sees to it that the rest is nothing.
    for (unsigned long long i = blockIdx.x * (unsigned long long)blockDim.x + threadIdx.x; i < n; i += LOADS * step) {
        uint4 loaded[LOADS];
#pragma unroll
        for (int j = 0; j < LOADS; j++) loaded[j] = params.src[i + j * step];
#pragma unroll
        for (int j = 0; j < LOADS; j++) sum |= loaded[j].x | loaded[j].y | loaded[j].z | loaded[j].w;
    }
    if (sum) *params.sink = sum;
}
