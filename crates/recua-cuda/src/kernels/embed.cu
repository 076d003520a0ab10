// embed: out[r] = table[tokens[r]], decoded. One block has a row, so a tied table is held once. Bound by latency.
#include "tile.cuh"
#include "status.cuh"

struct EmbedArgs {
    const u8* table;       // [n_tiles][k_tiles] tiles
    const float* undo;
    Tokens tokens;
    float* out;            // [n_rows][dim]
    u32 dim, k_tiles, first, n_here;   // the first row of this part of the table, and how many it has
};

extern "C" __global__ void __launch_bounds__(256) embed(EmbedArgs args) {
    let_next_start();
    wait_for_previous();
    bool is_good;
    const u32 token = args.tokens.get(blockIdx.x, is_good);
    if (!is_good || token < args.first || token - args.first >= args.n_here) return;
    const u32 row = token - args.first;
    const u8* tiles = args.table + (u64)(row / TILE_ROWS) * args.k_tiles * TILE_BYTES;
    const float undo = *args.undo;
    for (u32 i = threadIdx.x; i < args.dim; i += 256)
        args.out[(u64)blockIdx.x * args.dim + i] = decode_one(tiles + (u64)(i / TILE_COLUMNS) * TILE_BYTES, row % TILE_ROWS, i % TILE_COLUMNS) * undo;
}
