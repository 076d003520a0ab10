// Bytes between two places that do not overlap, wherever they begin: in vectors where both begin alike.

struct Params {
    const unsigned char* src;
    unsigned char* dst;
    unsigned long long n_bytes;
};

extern "C" __global__ void __launch_bounds__(256) copy(const __grid_constant__ Params params) {
    const unsigned char* src = params.src;
    unsigned char* dst = params.dst;
    unsigned long long n = params.n_bytes;
    unsigned long long first = blockIdx.x * (unsigned long long)blockDim.x + threadIdx.x;
    unsigned long long step = gridDim.x * (unsigned long long)blockDim.x;
    unsigned long long from = (unsigned long long)src, to = (unsigned long long)dst;
    if ((from ^ to) & 15) {
        for (unsigned long long i = first; i < n; i += step) dst[i] = src[i];
        return;
    }
    // The bytes before the first whole vector, and those after the last.
    unsigned long long head = (16 - (from & 15)) & 15;
    head = head < n ? head : n;
    unsigned long long n_vectors = (n - head) / 16;
    unsigned long long tail = head + n_vectors * 16;
    const uint4* src_vectors = (const uint4*)(src + head);
    uint4* dst_vectors = (uint4*)(dst + head);
    for (unsigned long long i = first; i < n_vectors; i += step) dst_vectors[i] = src_vectors[i];
    if (first < head) dst[first] = src[first];
    if (first < n - tail) dst[tail + first] = src[tail + first];
}
