// The matrices of attention_tensor: A is 16 queries by 16 elements or weights; B is 16 elements of K by 16 tokens, or 16 tokens by 16
// elements of V; C is their sums. attention_tensor declares `q_staged`, `p_staged`, `v_staged`, `sums` and their strides.

// The size of a 16x16 matrix in a page, in vectors: K is [2][head_dim / 16][token][element], V [2][head_dim / 16][element][token].
const MATRIX = 64u;

#ifdef EMULATED
// A slow scalar stand-in that tests index arithmetic on adapters without cooperative matrices. A lane holds half a row of sums; `MatrixA`
// and `MatrixB` are only places in memory.
var<private> emulated_lane: u32;
struct MatrixA { at: u32 }
struct MatrixB { at: At, is_k: bool, is_staged: bool }
struct Sums { v: array<f32, 8> }

fn load_q(at: u32) -> MatrixA { return MatrixA(at); }
fn load_p(at: u32) -> MatrixA { return MatrixA(at); }
fn load_k_matrix(at: At, i: u32) -> MatrixB { return MatrixB(moved(at, i), true, false); }
fn load_v_matrix(at: At, i: u32) -> MatrixB { return MatrixB(moved(at, i), false, false); }
fn load_v_staged(at: u32) -> MatrixB {
    var here: At;
    return MatrixB(moved(here, at), false, true);
}
fn moved(at: At, i: u32) -> At {
    var result = at;
    result.place += i;
    return result;
}
fn multiply_add(a: MatrixA, b: MatrixB, c: Sums) -> Sums {
    var result = c;
    let query = emulated_lane >> 1u;
    // The compiler must not know the bounds: it would unroll these loops, which takes minutes.
    for (var e = 0u; e < min(args.head_dim, 8u); e++) {
        let column = 8u * (emulated_lane & 1u) + e;
        for (var i = 0u; i < min(args.head_dim, 4u); i++) {
            var x = vec4<f32>();
            var y = vec4<f32>();
            if b.is_k {
                x = vec4<f32>(q_staged[a.at + query * q_stride() + i]);
                y = vec4<f32>(k_at(b.at, column * 4u + i));
            } else {
                x = vec4<f32>(p_staged[a.at + query * P_STRIDE + i]);
                if b.is_staged {
                    y = vec4<f32>(v_staged[b.at.place + column * 4u + i]);
                } else {
                    y = vec4<f32>(v_at(b.at, column * 4u + i));
                }
            }
            let products = x * y;
            result.v[e] += (products.x + products.y) + (products.z + products.w);
        }
    }
    return result;
}
fn store(result: Sums, at: u32) {
    for (var e = 0u; e < 4u; e++) {
        sums[at + (emulated_lane >> 1u) * S_STRIDE + 4u * (emulated_lane & 1u) + e] =
            vec2<f32>(result.v[2u * e], result.v[2u * e + 1u]);
    }
}
#else
alias MatrixA = coop_mat16x16<f16, A>;
alias MatrixB = coop_mat16x16<f16, B>;
alias Sums = coop_mat16x16<f32, C>;

fn load_q(at: u32) -> MatrixA {
    return coopLoadT<coop_mat16x16<f16, A>>(&q_staged[at], q_stride());
}
fn load_p(at: u32) -> MatrixA {
    return coopLoadT<coop_mat16x16<f16, A>>(&p_staged[at], P_STRIDE);
}
fn load_k_matrix(at: At, i: u32) -> MatrixB {
    return coopLoad<coop_mat16x16<f16, B>>(&k_cache[at.place + i], 4u);
}
fn load_v_matrix(at: At, i: u32) -> MatrixB {
    return coopLoad<coop_mat16x16<f16, B>>(&v_cache[at.place + i], 4u);
}
fn load_v_staged(at: u32) -> MatrixB {
    return coopLoad<coop_mat16x16<f16, B>>(&v_staged[at], 4u);
}
fn multiply_add(a: MatrixA, b: MatrixB, c: Sums) -> Sums {
    return coopMultiplyAdd(a, b, c);
}
fn store(result: Sums, at: u32) {
    coopStoreT(result, &sums[at], S_STRIDE);
}
#endif

// [16 queries][16 tokens or elements], for each group of sixteen queries.
var<private> c_0: Sums;
#ifdef TWO_TILES
var<private> c_1: Sums;
#endif

fn clear() {
    c_0 = Sums();
#ifdef TWO_TILES
    c_1 = Sums();
#endif
}

fn multiply_q(i: u32, b: MatrixB) {
    c_0 = multiply_add(load_q(4u * i), b, c_0);
#ifdef TWO_TILES
    c_1 = multiply_add(load_q(16u * q_stride() + 4u * i), b, c_1);
#endif
}
fn multiply_p(i: u32, b: MatrixB) {
    c_0 = multiply_add(load_p(4u * i), b, c_0);
#ifdef TWO_TILES
    c_1 = multiply_add(load_p(16u * P_STRIDE + 4u * i), b, c_1);
#endif
}

// Writes 16 columns, starting with `first`.
fn store_tile(first: u32) {
    store(c_0, first / 2u);
#ifdef TWO_TILES
    store(c_1, 16u * S_STRIDE + first / 2u);
#endif
}

// The scores of 16 tokens. The loads of several steps come first, so that they overlap.
fn multiply_keys(page: At, at: u32) {
    clear();
    var i = 0u;
    for (; i + 8u <= HEAD_DIM / 16u; i += 8u) {
        let k_0 = load_k_matrix(page, at + i * MATRIX);
        let k_1 = load_k_matrix(page, at + (i + 1u) * MATRIX);
        let k_2 = load_k_matrix(page, at + (i + 2u) * MATRIX);
        let k_3 = load_k_matrix(page, at + (i + 3u) * MATRIX);
        let k_4 = load_k_matrix(page, at + (i + 4u) * MATRIX);
        let k_5 = load_k_matrix(page, at + (i + 5u) * MATRIX);
        let k_6 = load_k_matrix(page, at + (i + 6u) * MATRIX);
        let k_7 = load_k_matrix(page, at + (i + 7u) * MATRIX);
        multiply_q(i, k_0);
        multiply_q(i + 1u, k_1);
        multiply_q(i + 2u, k_2);
        multiply_q(i + 3u, k_3);
        multiply_q(i + 4u, k_4);
        multiply_q(i + 5u, k_5);
        multiply_q(i + 6u, k_6);
        multiply_q(i + 7u, k_7);
    }
    for (; i + 4u <= HEAD_DIM / 16u; i += 4u) {
        let k_0 = load_k_matrix(page, at + i * MATRIX);
        let k_1 = load_k_matrix(page, at + (i + 1u) * MATRIX);
        let k_2 = load_k_matrix(page, at + (i + 2u) * MATRIX);
        let k_3 = load_k_matrix(page, at + (i + 3u) * MATRIX);
        multiply_q(i, k_0);
        multiply_q(i + 1u, k_1);
        multiply_q(i + 2u, k_2);
        multiply_q(i + 3u, k_3);
    }
    for (; i < HEAD_DIM / 16u; i++) {
        multiply_q(i, load_k_matrix(page, at + i * MATRIX));
    }
}

var<private> v_0: MatrixB;
var<private> v_1: MatrixB;
var<private> v_2: MatrixB;
var<private> v_3: MatrixB;
var<private> v_4: MatrixB;
var<private> v_5: MatrixB;
var<private> v_6: MatrixB;
var<private> v_7: MatrixB;

// Sixteen elements of V, of 16 tokens of the chunk.
fn value_matrix(i: u32, tile: u32, pages: u32) -> MatrixB {
    return load_v_matrix(pages_at[pages + i / 2u], (i % 2u * (HEAD_DIM / 16u) + tile) * MATRIX);
}
fn load_values(tile: u32, pages: u32) {
    v_0 = value_matrix(0u, tile, pages);
    v_1 = value_matrix(1u, tile, pages);
    v_2 = value_matrix(2u, tile, pages);
    v_3 = value_matrix(3u, tile, pages);
    v_4 = value_matrix(4u, tile, pages);
    v_5 = value_matrix(5u, tile, pages);
    v_6 = value_matrix(6u, tile, pages);
    v_7 = value_matrix(7u, tile, pages);
}
fn multiply_values() {
    multiply_p(0u, v_0);
    multiply_p(1u, v_1);
    multiply_p(2u, v_2);
    multiply_p(3u, v_3);
    multiply_p(4u, v_4);
    multiply_p(5u, v_5);
    multiply_p(6u, v_6);
    multiply_p(7u, v_7);
}
