//! Attention by cooperative matrices, on an adapter that has none.

use crate::matmul::tests::opened_with;
use crate::tuning::Tuning;
use recua_compute::cases;

#[test]
fn attention_by_cooperative_matrices_has_its_indexes_right() {
    let emulated = Tuning { emulated: true, ..Tuning::default() };
    let Some(device) = opened_with(emulated) else { return };
    let report = cases::check_attention(device);
    println!("{report}");
    report.assert();
}
