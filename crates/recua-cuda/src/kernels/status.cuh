// Indexes from buffers that are out of range: the first one of a submission is kept, [code, index, limit, cut]. The codes are in report.rs of
// recua-compute.
#pragma once
#include "base.cuh"

#define BAD_TOKEN 1
#define BAD_SEQUENCE_STORE 2
#define BAD_POSITION_STORE 3
#define BAD_PAGE_STORE 4
#define BAD_SEQUENCE 5
#define BAD_POSITION 6
#define BAD_PAGE 7
#define BAD_ROW 8
#define BAD_PAGE_FROM 9
#define BAD_PAGE_TO 10
#define BAD_CHOSEN 11

DEVICE void report(u32* status, u32 code, u32 index, u32 limit) {
    if (atomicCAS(status, 0u, code) == 0u) {
        status[1] = index;
        status[2] = limit;
    }
}

// Counts elements of keys and values that were cut; this word is not cleared. It stops long before it could wrap.
DEVICE void report_cut(u32* status, u32 n) {
    if (n && *(volatile u32*)(status + 3) < 0x40000000u) atomicAdd(status + 3, n);
}

// The token of a row of embed, from its word; `is_good` tells whether there is such a token. Only one thread of a block reports.
#define CHOSEN 0x80000000u

struct Tokens {
    const u32* words;      // [n_rows]
    const u32* chosen;     // where words with the bit CHOSEN point to, or none
    u32* status;
    u32 n_chosen, n;       // tokens of the table

    DEVICE_MEMBER u32 get(u32 row, bool& is_good) const {
        const bool reports = threadIdx.x == 0;
        u32 token = words[row];
        is_good = true;
        if (chosen && (token & CHOSEN)) {
            const u32 place = token & ~CHOSEN;
            if (place >= n_chosen) {
                if (reports) report(status, BAD_CHOSEN, place, n_chosen);
                is_good = false;
                return 0;
            }
            token = chosen[place];
            // No logit was finite: the host finds out, and throws the row away.
            if (token == 0xffffffffu) token = 0;
        }
        if (token >= n) {
            if (reports) report(status, BAD_TOKEN, token, n);
            is_good = false;
        }
        return token;
    }
};
