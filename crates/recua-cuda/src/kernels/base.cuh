// What every kernel uses: integer types, f16 arithmetic, and the instructions that C++ has no name for. No header of CUDA is needed.
//
// Asynchronous copies. `copy_async` is called by all lanes of a warp and brings some bytes (whole vectors of 16) to shared memory; the
// barrier it names turns when they are there. From compute capability 9.0 on one lane asks the copy engine; before, each lane
// copies vectors of its own.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define DEVICE static __device__ __forceinline__
#define DEVICE_MEMBER __device__ __forceinline__
#define FULL 0xffffffffu

#if __CUDA_ARCH__ >= 900
#define HAS_BULK 1
#else
#define HAS_BULK 0
#endif

// Two bytes that may lie anywhere.
DEVICE u32 raw_u16(const u8* b) { return b[0] | b[1] << 8; }

// ---- dependent launches

// What the kernels before wrote can be read from here on. Every kernel calls it, also one that reads nothing: the kernel after the next
// relies on it.
DEVICE void wait_for_previous() {
#if HAS_BULK
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// The next kernel may start, up to its own wait.
DEVICE void let_next_start() {
#if HAS_BULK
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// ---- f16, two in a word

DEVICE u32 h2_add(u32 a, u32 b) {
    u32 d;
    asm("add.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
    return d;
}
DEVICE u32 h2_sub(u32 a, u32 b) {
    u32 d;
    asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
    return d;
}
DEVICE u32 h2_mul(u32 a, u32 b) {
    u32 d;
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
    return d;
}
DEVICE u32 h2_fma(u32 a, u32 b, u32 c) {
    u32 d;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}
// The lower one is `low`.
DEVICE u32 h2_from(float low, float high) {
    u32 d;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(high), "f"(low));
    return d;
}
DEVICE u16 h_from(float x) {
    u16 d;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(d) : "f"(x));
    return d;
}
DEVICE float h_to_float(u16 h) {
    float d;
    asm("cvt.f32.f16 %0, %1;" : "=f"(d) : "h"(h));
    return d;
}
// Both halves are the lower one, or the upper one.
DEVICE u32 h2_low(u32 x) { return __byte_perm(x, x, 0x1010); }
DEVICE u32 h2_high(u32 x) { return __byte_perm(x, x, 0x3232); }

// (a & b) | c
DEVICE u32 and_or(u32 a, u32 b, u32 c) {
    u32 d;
    asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}

// 2 to the power of x, and nothing for minus infinity.
DEVICE float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// ---- shared memory, by its 32-bit address

DEVICE u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }
DEVICE uint4 lds128(u32 a) {
    uint4 v;
    asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(a) : "memory");
    return v;
}
DEVICE uint2 lds64(u32 a) {
    uint2 v;
    asm volatile("ld.shared.v2.u32 {%0,%1}, [%2];" : "=r"(v.x), "=r"(v.y) : "r"(a) : "memory");
    return v;
}
DEVICE u32 lds32(u32 a) {
    u32 v;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(a) : "memory");
    return v;
}
DEVICE u32 lds16(u32 a) {
    u16 v;
    asm volatile("ld.shared.u16 %0, [%1];" : "=h"(v) : "r"(a) : "memory");
    return v;
}
DEVICE float lds_float(u32 a) { return __uint_as_float(lds32(a)); }
DEVICE void sts32(u32 a, u32 x) { asm volatile("st.shared.u32 [%0], %1;" ::"r"(a), "r"(x) : "memory"); }
DEVICE void sts_float(u32 a, float x) { sts32(a, __float_as_uint(x)); }
DEVICE void sts128(u32 a, float x, float y, float z, float w) {
    asm volatile("st.shared.v4.f32 [%0], {%1,%2,%3,%4};" ::"r"(a), "f"(x), "f"(y), "f"(z), "f"(w) : "memory");
}

// How often it was called for this word before; what the caller has read until then is not read later.
DEVICE u32 ticket_shared(u32 a) {
    u32 old;
    asm volatile("atom.acq_rel.cta.shared::cta.add.u32 %0, [%1], 1;" : "=r"(old) : "r"(a) : "memory");
    return old;
}

// ---- barriers of warps, by number, of which 0 is __syncthreads'

// What warps have written before either can be read behind `named_wait`.
DEVICE void named_wait(u32 id, u32 n_threads) { asm volatile("barrier.cta.sync %0, %1;" ::"r"(id), "r"(n_threads) : "memory"); }
DEVICE void named_arrive(u32 id, u32 n_threads) { asm volatile("barrier.cta.arrive %0, %1;" ::"r"(id), "r"(n_threads) : "memory"); }

// ---- barriers of asynchronous copies

#if HAS_BULK
#define COPY_ARRIVALS 1
#else
#define COPY_ARRIVALS 32
#endif

DEVICE void barrier_init(u32 bar, u32 arrivals) {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(bar), "r"(arrivals) : "memory");
}
// By the thread that made barriers, before others use them.
DEVICE void barriers_ready() {
#if HAS_BULK
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}
DEVICE void barrier_arrive(u32 bar) {
    asm volatile("{ .reg .b64 s; mbarrier.arrive.shared.b64 s, [%0]; }" ::"r"(bar) : "memory");
}
DEVICE void barrier_wait(u32 bar, u32 parity) {
    u32 done;
    do {
#if HAS_BULK
        asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                     : "=r"(done) : "r"(bar), "r"(parity) : "memory");
#else
        asm volatile("{ .reg .pred p; mbarrier.test_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                     : "=r"(done) : "r"(bar), "r"(parity) : "memory");
#endif
    } while (!done);
}
// Announces `n_bytes` that copies will bring; by all lanes of a warp, before those copies.
DEVICE void copies_expected(u32 bar, u32 n_bytes, u32 lane) {
#if HAS_BULK
    if (lane == 0) asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(n_bytes) : "memory");
#endif
}
DEVICE void copy_async(u32 dst, const void* src, u32 n_bytes, u32 bar, u32 lane) {
#if HAS_BULK
    if (lane == 0)
        asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(dst),
                     "l"(src), "r"(n_bytes), "r"(bar) : "memory");
#else
    for (u32 i = lane * 16; i < n_bytes; i += 512)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(dst + i), "l"((const u8*)src + i) : "memory");
#endif
}
// After the copies that share a barrier's turn; by all lanes of the warp.
DEVICE void copies_issued(u32 bar) {
#if !HAS_BULK
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(bar) : "memory");
#endif
}

// ---- tensor cores

DEVICE void ldmatrix4(u32 a, u32& r0, u32& r1, u32& r2, u32& r3) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r0), "=r"(r1), "=r"(r2), "=r"(r3) : "r"(a) : "memory");
}
DEVICE void ldmatrix4_transposed(u32 a, u32& r0, u32& r1, u32& r2, u32& r3) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r0), "=r"(r1), "=r"(r2), "=r"(r3) : "r"(a) : "memory");
}
DEVICE u32 transpose8x8(u32 x) {
    u32 d;
    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(d) : "r"(x));
    return d;
}
// d += a b for a of 16 x 16 and b of 16 x 8, f16, summed in f32.
DEVICE void mma16(float* d, const u32* a, u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// ---- global memory that other blocks of the same launch write: past the first cache

DEVICE float4 load_fresh(const float4* p) {
    float4 v;
    asm volatile("ld.global.cg.v4.f32 {%0,%1,%2,%3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "l"(p) : "memory");
    return v;
}
DEVICE u32 ticket(u32* counter, u32 n = 1) {
    u32 old;
    asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], %2;" : "=r"(old) : "l"(counter), "r"(n) : "memory");
    return old;
}
