// How matmul_coop_64.wgsl and matmul_coop_128.wgsl write the sums of a subgroup, by way of its own part of `partial`.

// A lane's elements of a matrix: every second row of x, starting with lane / 16.
struct Elements {
    a: vec4<f32>,
    b: vec4<f32>,
}

// What the sums of row `r` of x are multiplied by.
fn back_of(r: u32) -> f32 {
    return scale_back(exponent_in(x[exponent_place(r, args.runs)]));
}

// The products of 16 rows of x from `row` on.
fn elements(sums: Sums, row: u32) -> Elements {
    let r = row + (lane >> 4u);
    let back_a = vec4<f32>(back_of(r), back_of(r + 2u), back_of(r + 4u), back_of(r + 6u));
    let back_b = vec4<f32>(back_of(r + 8u), back_of(r + 10u), back_of(r + 12u), back_of(r + 14u));
    let slot = subgroup * 256u;
    sync();
    store(sums, slot);
    sync();
    let at = slot + lane;
    return Elements(
        back_a * vec4<f32>(partial[at], partial[at + 32u], partial[at + 64u], partial[at + 96u]),
        back_b * vec4<f32>(partial[at + 128u], partial[at + 160u], partial[at + 192u], partial[at + 224u]),
    );
}

fn write_elements(row: u32, i: u32, v: Elements) {
    let r = row + (lane >> 4u);
    let n = i + (lane & 15u);
#for J in 0 1 2 3
    write_out(r + 2u * $Ju, n, v.a[$J]);
#end
#for J in 0 1 2 3
    write_out(r + 8u + 2u * $Ju, n, v.b[$J]);
#end
}

fn silu_four(v: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(silu(v.x), silu(v.y), silu(v.z), silu(v.w));
}

// Writes the products of 16 rows of x from `row` on with the 32 weight rows of a tile.
fn write_tile(row: u32, tile: u32, first: Sums, second: Sums) {
    let a = elements(first, row);
    let b = elements(second, row);
    if has(GLU) {
        write_elements(row, tile * 16u, Elements(silu_four(a.a) * b.a, silu_four(a.b) * b.b));
    } else {
        write_elements(row, tile * 32u, a);
        write_elements(row, tile * 32u + 16u, b);
    }
}
