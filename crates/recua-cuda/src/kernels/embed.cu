// embed: out[r] = table[tokens[r]], decoded. One block has a row, so a tied table is held once. Bound by latency.
#include "tile.cuh"
#include "status.cuh"

struct EmbedArgs {
    const u8* table;       // [n_tiles][k_tiles] tiles
    const float* undo;
    const u32* tokens;     // [n_rows]
    float* out;            // [n_rows][dim]
    u32* status;
    u32 n, dim, k_tiles, first;   // rows of the whole table; the first one of this part of it, which has n_here
    u32 n_here;
};

extern "C" __global__ void __launch_bounds__(256) embed(EmbedArgs args) {
    let_next_start();
    wait_for_previous();
    const u32 token = args.tokens[blockIdx.x];
    if (token >= args.n) {
        if (threadIdx.x == 0) report(args.status, BAD_TOKEN, token, args.n);
        return;
    }
    if (token < args.first || token - args.first >= args.n_here) return;
    const u32 row = token - args.first;
    const u8* tiles = args.table + (u64)(row / TILE_ROWS) * args.k_tiles * TILE_BYTES;
    const float undo = *args.undo;
    for (u32 i = threadIdx.x; i < args.dim; i += 256)
        args.out[(u64)blockIdx.x * args.dim + i] = decode_one(tiles + (u64)(i / TILE_COLUMNS) * TILE_BYTES, row % TILE_ROWS, i % TILE_COLUMNS) * undo;
}
