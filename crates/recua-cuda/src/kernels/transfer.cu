// The small inputs or outputs of a launch, all in one kernel: pieces between pinned memory of the host and memory of the device, one
// block a piece. Reading the host takes a microsecond or more, so several vectors are under way a thread.

constexpr int PIECES = 32;
constexpr int LOADS = 4;

struct Piece {
    const unsigned char* src;
    unsigned char* dst;
    unsigned long long n_bytes;
};

struct Params {
    Piece pieces[PIECES];
    // Words that are zeroed once the first piece is copied, which has them: what kernels reported.
    unsigned int* clear;
    unsigned long long n_clear;
};

extern "C" __global__ void __launch_bounds__(256) transfer(const __grid_constant__ Params params) {
    Piece piece = params.pieces[blockIdx.x];
    unsigned int n_vectors = (unsigned int)(piece.n_bytes / 16);
    // Pieces that do not begin at whole vectors go by bytes.
    if (((unsigned long long)piece.src | (unsigned long long)piece.dst) & 15) n_vectors = 0;
    const uint4* src = (const uint4*)piece.src;
    uint4* dst = (uint4*)piece.dst;
    for (unsigned int first = threadIdx.x; first < n_vectors; first += LOADS * blockDim.x) {
        uint4 loaded[LOADS];
#pragma unroll
        for (int j = 0; j < LOADS; j++) {
            unsigned int i = first + j * blockDim.x;
            if (i < n_vectors) loaded[j] = src[i];
        }
#pragma unroll
        for (int j = 0; j < LOADS; j++) {
            unsigned int i = first + j * blockDim.x;
            if (i < n_vectors) dst[i] = loaded[j];
        }
    }
    for (unsigned long long i = n_vectors * 16ull + threadIdx.x; i < piece.n_bytes; i += blockDim.x)
        piece.dst[i] = piece.src[i];
    __syncthreads();
    if (blockIdx.x == 0 && threadIdx.x < params.n_clear) params.clear[threadIdx.x] = 0;
}
