// Indexes from buffers that are out of range: the first one of a submission is kept, [code, index, limit, 0]. The codes are in status.rs.
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

DEVICE void report(u32* status, u32 code, u32 index, u32 limit) {
    if (atomicCAS(status, 0u, code) == 0u) {
        status[1] = index;
        status[2] = limit;
    }
}
