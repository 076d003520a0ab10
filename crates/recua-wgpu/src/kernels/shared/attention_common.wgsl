// Shared by the kernels of attention: bindings, arguments, the cache, and the arithmetic that gives a query the same bits in each of them.
//
// A chunk of 128 tokens has its own largest score, weights and sums; chunks are merged in order from position 0. A score is four chains,
// each over a quarter of the head's units of eight, added in order. The weights of a chunk are summed in 16 classes (token mod 16), each in
// order, then the classes; its weighted V is summed in 8 runs of 16 tokens, each in order, then the runs. All of this uses explicit
// multiply-adds, so a query's bits depend only on the query and its sequence. (Online softmax and split KV: FlashAttention-2,
// Flash-Decoding.)
// What lies beyond a row's position may be NaN: its scores are replaced, and its V is not read.
// The work list says which tiles of rows attend to which chunks; a workgroup takes one tile after the other.
#import status
#import row_map
#import math
#import args/attention
var<immediate> args: Args;
#import work_list
@group(0) @binding(5) var<storage, read> q: array<f32>;
#ifdef TENSOR
// Matrices are loaded in vectors that a driver reads at once: from an array of pairs, it would read f16 one by one.
alias Piece = vec4<f16>;
#else
#ifdef WIDE
// For heads of a multiple of eight elements: the cache is read 16 bytes at a time.
alias Piece = vec4<u32>;
#else
alias Piece = u32;
#endif
#endif
@group(0) @binding(6) var<storage, read_write> out: array<f32>;
// The folded results of the pieces of split tiles: see the kernels.
@group(0) @binding(7) var<storage, read_write> pieces: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read> k_cache: array<Piece>;
@group(0) @binding(9) var<storage, read> v_cache: array<Piece>;
#ifdef SPREAD
// A cache that one allocation cannot hold: k_cache and v_cache are its first allocation_pages pages, the bindings below the next ones.
@group(0) @binding(10) var<storage, read> k_cache_1: array<Piece>;
@group(0) @binding(11) var<storage, read> v_cache_1: array<Piece>;
@group(0) @binding(12) var<storage, read> k_cache_2: array<Piece>;
@group(0) @binding(13) var<storage, read> v_cache_2: array<Piece>;
@group(0) @binding(14) var<storage, read> k_cache_3: array<Piece>;
@group(0) @binding(15) var<storage, read> v_cache_3: array<Piece>;
#endif

const PAGE = 32u;
const CHUNK = 128u; // and the threads of a workgroup
const RUN = 16u;
const LOWEST = -3.4028234e38;
override HEAD_MAX: u32 = 256u; // room for a head

// The result of the chunks so far, for four queries.
struct Sum { largest: vec4<f32>, total: vec4<f32>, keep: vec4<f32>, take: vec4<f32> }

fn nothing() -> Sum {
    return Sum(vec4<f32>(LOWEST), vec4<f32>(0.0), vec4<f32>(0.0), vec4<f32>(0.0));
}

// Merges a chunk: the caller's sums must become fma(sum, keep, chunk * take).
fn merge(sum: Sum, chunk_largest: vec4<f32>, chunk_total: vec4<f32>, sees: vec4<bool>) -> Sum {
    let m = select(sum.largest, max(sum.largest, chunk_largest), sees);
    let keep = exp_negative(sum.largest - m);
    let take = exp_negative(min(chunk_largest - m, vec4<f32>(0.0)));
    let t = select(sum.total, fma(sum.total, keep, chunk_total * take), sees);
    return Sum(m, t, keep, take);
}

fn take_in(sum: vec4<f32>, chunk: vec4<f32>, by: Sum, sees: vec4<bool>) -> vec4<f32> {
    return select(sum, fma(sum, by.keep, chunk * by.take), sees);
}

// The weight of a score in its chunk. A replaced score is far below the largest, unless all are replaced.
fn weight_of(score: vec4<f32>, chunk_largest: vec4<f32>) -> vec4<f32> {
    return select(exp_negative(score - chunk_largest), vec4<f32>(0.0), score == vec4<f32>(LOWEST));
}

// Adds four elements of a head to the scores of four queries.
fn dot_four(
    score: vec4<f32>,
    k: vec4<f32>,
    q_0: vec4<f32>,
    q_1: vec4<f32>,
    q_2: vec4<f32>,
    q_3: vec4<f32>,
) -> vec4<f32> {
    let two = fma(vec4<f32>(k.y), q_1, fma(vec4<f32>(k.x), q_0, score));
    return fma(vec4<f32>(k.w), q_3, fma(vec4<f32>(k.z), q_2, two));
}

// The number of tokens that a row sees; 0 if its position is out of range.
fn n_seen(row: u32) -> u32 {
    let position = positions[args.positions_start + row];
    if position >= args.pages_max * PAGE {
        return 0u;
    }
    return position + 1u;
}

fn sequence_of(row: u32) -> u32 {
    return sequences[args.sequences_start + row];
}

// Workgroups of a tile: the heads, in blocks of block_heads; and, in the weighted sum, parts of heads with more than 128 elements.
fn blocks_of_head() -> u32 {
    return (args.group + args.block_heads - 1u) / args.block_heads;
}
fn dim_parts() -> u32 {
    return (args.head_dim + 127u) / 128u;
}

// The start of a page's KV head: its allocation, and its place there.
#ifdef SPREAD
struct At { allocation: u32, place: u32 }
#else
struct At { place: u32 }
#endif

fn page_at(sequence: u32, page_idx: u32, kv_head: u32) -> At {
    var page = pages[args.pages_start + sequence * args.pages_max + page_idx];
    if page >= args.n_pages {
        report(7u, page, args.n_pages);
        page = 0u;
    }
#ifdef SPREAD
    let allocation = page / args.allocation_pages;
    page = page % args.allocation_pages;
    return At(allocation, (page * args.n_kv_heads + kv_head) * PAGE * token_size());
#else
    return At((page * args.n_kv_heads + kv_head) * PAGE * token_size());
#endif
}

fn k_at(at: At, i: u32) -> Piece {
#ifdef SPREAD
    switch at.allocation {
        case 0u: { return k_cache[at.place + i]; }
        case 1u: { return k_cache_1[at.place + i]; }
        case 2u: { return k_cache_2[at.place + i]; }
        default: { return k_cache_3[at.place + i]; }
    }
#else
    return k_cache[at.place + i];
#endif
}

fn v_at(at: At, i: u32) -> Piece {
#ifdef SPREAD
    switch at.allocation {
        case 0u: { return v_cache[at.place + i]; }
        case 1u: { return v_cache_1[at.place + i]; }
        case 2u: { return v_cache_2[at.place + i]; }
        default: { return v_cache_3[at.place + i]; }
    }
#else
    return v_cache[at.place + i];
#endif
}

#ifdef TENSOR
fn token_size() -> u32 {
    return args.head_dim / 4u;
}
#else
// Eight adjacent elements of a token's K or V as stored in the cache: unit i is the elements 8 * i to 8 * i + 7. rope_store writes them.
#ifdef CACHE_F16
struct Unit { bits: vec4<u32> }
#else
struct Unit { bits: vec4<u32>, more: vec4<u32> }
#endif

#ifdef WIDE
#ifdef CACHE_F16
fn token_size() -> u32 {
    return args.head_dim / 8u;
}
fn load_k(at: At, i: u32, page_offset: u32) -> Unit {
    return Unit(k_at(at, i * PAGE + page_offset));
}
fn load_v(at: At, i: u32, page_offset: u32) -> Unit {
    return Unit(v_at(at, page_offset * token_size() + i));
}
#else
fn token_size() -> u32 {
    return args.head_dim / 4u;
}
fn load_k(at: At, i: u32, page_offset: u32) -> Unit {
    return Unit(k_at(at, 2u * i * PAGE + page_offset), k_at(at, (2u * i + 1u) * PAGE + page_offset));
}
fn load_v(at: At, i: u32, page_offset: u32) -> Unit {
    let place = page_offset * token_size() + 2u * i;
    return Unit(v_at(at, place), v_at(at, place + 1u));
}
#endif
#else
#ifdef CACHE_F16
fn token_size() -> u32 {
    return args.head_dim / 2u;
}
#else
fn token_size() -> u32 {
    return args.head_dim;
}
#endif
// A word, or zeros after the end of the head.
fn k_word(at: At, i: u32, page_offset: u32) -> u32 {
    if i >= token_size() {
        return 0u;
    }
    return k_at(at, i * PAGE + page_offset);
}
fn v_word(at: At, i: u32, page_offset: u32) -> u32 {
    if i >= token_size() {
        return 0u;
    }
    return v_at(at, page_offset * token_size() + i);
}
fn k_words(at: At, i: u32, page_offset: u32) -> vec4<u32> {
    return vec4<u32>(
        k_word(at, i, page_offset), k_word(at, i + 1u, page_offset), k_word(at, i + 2u, page_offset), k_word(at, i + 3u, page_offset));
}
fn v_words(at: At, i: u32, page_offset: u32) -> vec4<u32> {
    return vec4<u32>(
        v_word(at, i, page_offset), v_word(at, i + 1u, page_offset), v_word(at, i + 2u, page_offset), v_word(at, i + 3u, page_offset));
}
#ifdef CACHE_F16
fn load_k(at: At, i: u32, page_offset: u32) -> Unit {
    return Unit(k_words(at, 4u * i, page_offset));
}
fn load_v(at: At, i: u32, page_offset: u32) -> Unit {
    return Unit(v_words(at, 4u * i, page_offset));
}
#else
fn load_k(at: At, i: u32, page_offset: u32) -> Unit {
    return Unit(k_words(at, 8u * i, page_offset), k_words(at, 8u * i + 4u, page_offset));
}
fn load_v(at: At, i: u32, page_offset: u32) -> Unit {
    return Unit(v_words(at, 8u * i, page_offset), v_words(at, 8u * i + 4u, page_offset));
}
#endif
#endif

#ifdef CACHE_F16
fn halves(word: u32) -> vec2<f32> {
    return vec2<f32>(unpack2x16float(word).x, unpack2x16float(word >> 16u).x);
}
fn low(unit: Unit) -> vec4<f32> {
    return vec4<f32>(halves(unit.bits.x), halves(unit.bits.y));
}
fn high(unit: Unit) -> vec4<f32> {
    return vec4<f32>(halves(unit.bits.z), halves(unit.bits.w));
}
#else
fn low(unit: Unit) -> vec4<f32> {
    return bitcast<vec4<f32>>(unit.bits);
}
fn high(unit: Unit) -> vec4<f32> {
    return bitcast<vec4<f32>>(unit.more);
}
#endif

// The weighted sum of eight elements of V, for four queries each.
struct Eight {
    e_0: vec4<f32>,
    e_1: vec4<f32>,
    e_2: vec4<f32>,
    e_3: vec4<f32>,
    e_4: vec4<f32>,
    e_5: vec4<f32>,
    e_6: vec4<f32>,
    e_7: vec4<f32>,
}

// Adds a token's V to the sum.
fn weigh(sum: Eight, unit: Unit, weight: vec4<f32>) -> Eight {
    let a = low(unit);
    let b = high(unit);
    return Eight(
        fma(vec4<f32>(a.x), weight, sum.e_0),
        fma(vec4<f32>(a.y), weight, sum.e_1),
        fma(vec4<f32>(a.z), weight, sum.e_2),
        fma(vec4<f32>(a.w), weight, sum.e_3),
        fma(vec4<f32>(b.x), weight, sum.e_4),
        fma(vec4<f32>(b.y), weight, sum.e_5),
        fma(vec4<f32>(b.z), weight, sum.e_6),
        fma(vec4<f32>(b.w), weight, sum.e_7),
    );
}

fn no_sum() -> Eight {
    let zero = vec4<f32>(0.0);
    return Eight(zero, zero, zero, zero, zero, zero, zero, zero);
}
#endif
