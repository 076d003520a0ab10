//! The arguments of kernels: structures that the host fills, whose WGSL text the kernels import as `args/NAME`, so that the two cannot
//! differ. This module knows no kernel and no op.

recua_compute::args! {
    pub(crate) struct AttentionArgs {
        positions_start: u32,
        sequences_start: u32,
        pages_start: u32,
        n_sequences: u32,
        /// Columns of the page table.
        pages_max: u32,
        work_start: u32,
        /// Words of the work list.
        work_words: u32,
        n_rows: u32,
        n_heads: u32,
        n_kv_heads: u32,
        n_pages: u32,
        head_dim: u32,
        scale: f32,
        q_start: u32,
        /// Words from one row of q to the next.
        q_stride: u32,
        out_start: u32,
        /// Query heads per KV head, and how many of them a workgroup takes.
        group: u32,
        block_heads: u32,
        /// The most rows in a tile.
        block_rows: u32,
        /// Places for pieces in the workspace.
        places: u32,
        /// Pages in an allocation of a cache that is spread over several.
        allocation_pages: u32,
    }
}

recua_compute::args! {
    pub(crate) struct CopyPagesArgs {
        list_start: u32,
        n_pairs: u32,
        /// Pages of the pools.
        n_from: u32,
        n_to: u32,
        /// The pages that are bound.
        from_first: u32,
        from_pages: u32,
        to_first: u32,
        to_pages: u32,
        /// Vectors of 16 bytes in a page of K, and in a page of V.
        page_vectors: u32,
    }
}

recua_compute::args! {
    /// The arguments of the kernels that import `matmul_bindings.wgsl`.
    pub(crate) struct MatmulArgs {
        /// Columns of x.
        k: u32,
        /// Rows of x.
        rows: u32,
        /// Units in a weight row.
        units: u32,
        /// The last tile in this piece of the weight.
        last_tile: u32,
        /// The number of outputs of this piece, and the first of them.
        count: u32,
        first: u32,
        /// Columns of out.
        n: u32,
        /// Flags; their bits are in `matmul_bindings.wgsl`.
        flags: u32,
        /// Tiles per workgroup of `matmul_coop_16.wgsl`.
        tiles: u32,
        /// Runs of 16 columns in the f16 copy of x, including those of zeros and of exponents; 0 where x is f32.
        runs: u32,
        /// Where each of these begins, in elements.
        x: u32,
        out: u32,
        bias: u32,
        add: u32,
    }
}

recua_compute::args! {
    pub(crate) struct RopeStoreArgs {
        positions_start: u32,
        sequences_start: u32,
        pages_start: u32,
        n_sequences: u32,
        /// Columns of the page table.
        pages_max: u32,
        n_rows: u32,
        n_heads: u32,
        n_kv_heads: u32,
        n_pages: u32,
        /// Positions in the table, and rotated pairs per head.
        positions_max: u32,
        pairs: u32,
        /// Where each of these begins, and the distance between its rows, in words.
        q_start: u32,
        q_stride: u32,
        k_start: u32,
        k_stride: u32,
        v_start: u32,
        v_stride: u32,
        table_start: u32,
        q_norm_start: u32,
        k_norm_start: u32,
        eps: f32,
        head_dim: u32,
        page_tokens: u32,
        /// The first page of the bound allocation. The dispatch for page 0 also rotates q.
        first_page: u32,
        allocation_pages: u32,
    }
}
