// The matrices of matmul_coop_*.wgsl: A is 16 weight rows by 16 columns, B is 16 columns by 16 rows of x, C their sums. The kernels declare
// `staged` and `staged_x`; `partial` receives sums as [row of x][weight row].
// EMULATED: a slow scalar stand-in that tests index arithmetic on adapters without cooperative matrices. A lane holds half a row of C;
// `MatrixA` and `MatrixB` are only offsets into workgroup memory.

// The place of an invocation: built-in inputs of the entry points.
struct Place {
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
#ifdef EMULATED
#else
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
#endif
}

// This invocation's subgroup, and its place in it.
var<private> subgroup: u32;
var<private> lane: u32;

fn take_place(place: Place) {
#ifdef EMULATED
    subgroup = place.local >> 5u;
    lane = place.local & 31u;
#else
    subgroup = place.subgroup;
    lane = place.lane;
#endif
}

#ifdef EMULATED

struct MatrixA {
    at: u32,
}

struct MatrixB {
    at: u32,
}

struct Sums {
    v: array<f32, 8>,
}

fn sync() {
    workgroupBarrier();
}

fn load_a(at: u32) -> MatrixA {
    return MatrixA(at);
}

fn load_b(at: u32) -> MatrixB {
    return MatrixB(at);
}

fn b_four(b: MatrixB, row: u32, i: u32) -> vec4<f32> {
    return vec4<f32>(staged_x[b.at + row * X_STRIDE + i]);
}

fn multiply_add(a: MatrixA, b: MatrixB, c: Sums) -> Sums {
    var sums = c;
    let row = lane >> 1u;
    // The compiler must not know the bounds: it would unroll these loops, which takes minutes.
    for (var e = 0u; e < min(args.k, 8u); e++) {
        let weight_row = 8u * (lane & 1u) + e;
        for (var i = 0u; i < min(args.k, 4u); i++) {
            let products = vec4<f32>(staged[a.at + weight_row * STRIDE + i]) * b_four(b, row, i);
            sums.v[e] += (products.x + products.y) + (products.z + products.w);
        }
    }
    return sums;
}

fn add_sums(a: Sums, b: Sums) -> Sums {
    var sums = a;
    for (var e = 0u; e < 8u; e++) {
        sums.v[e] += b.v[e];
    }
    return sums;
}

fn store(sums: Sums, at: u32) {
    for (var e = 0u; e < 8u; e++) {
        partial[at + (lane >> 1u) * 16u + 8u * (lane & 1u) + e] = sums.v[e];
    }
}

#else
alias MatrixA = coop_mat16x16<f16, A>;
alias MatrixB = coop_mat16x16<f16, B>;
alias Sums = coop_mat16x16<f32, C>;

// Needed between a subgroup's writes to its own workgroup memory and its loads.
fn sync() {
    subgroupBarrier();
}

fn load_a(at: u32) -> MatrixA {
    return coopLoadT<coop_mat16x16<f16, A>>(&staged[at], STRIDE);
}

fn load_b(at: u32) -> MatrixB {
    return coopLoad<coop_mat16x16<f16, B>>(&staged_x[at], X_STRIDE);
}

fn multiply_add(a: MatrixA, b: MatrixB, c: Sums) -> Sums {
    return coopMultiplyAdd(a, b, c);
}

fn add_sums(a: Sums, b: Sums) -> Sums {
    return a + b;
}

fn store(sums: Sums, at: u32) {
    coopStore(sums, &partial[at], 16u);
}
#endif
