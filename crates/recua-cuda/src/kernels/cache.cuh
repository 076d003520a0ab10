// The cache of keys and values, and where rows stand in it.
//
// A pool keeps K, and V after it, each as [page][KV head][32 tokens][HEAD_PADDED] of f16 (f32: [..][HEAD_DIM]). The vectors of 16 bytes of
// a token are exchanged by its number, so that eight tokens' equal vectors lie in different banks when they are copied as they are.
#pragma once
#include "status.cuh"

#define PAGE_TOKENS 32
#define INERT 0xffffffffu
#define HEAD_PADDED ((HEAD_DIM + 15) / 16 * 16)
#define HEAD_VECTORS (HEAD_PADDED / 8)
#if HEAD_VECTORS % 8 == 0
#define EXCHANGE 7
#elif HEAD_VECTORS % 4 == 0
#define EXCHANGE 3
#else
#define EXCHANGE 1
#endif

// Where vector `i` of token `token` lies among the token's.
DEVICE u32 exchanged(u32 i, u32 token) { return i ^ (token & EXCHANGE); }

struct Rows {
    const u32* positions;
    const u32* sequences;
    const u32* pages;      // [n_sequences][pages_max]
    u32* status;
    u32 n_sequences, pages_max, n_pages, n_rows;
};
