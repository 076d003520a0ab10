//! `recua verify-batch` on real models. Unit tests beside the proof show that it can fail.

use crate::{golden, recua};

#[test]
fn the_cpu_keeps_the_contract() {
    for ty in ["Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "Q4_0", "F16"] {
        let ran = recua(&["verify-batch", &golden(ty), "--device", "cpu"]).ok();
        assert!(ran.text().contains("batches of 16") && ran.text().contains("Verified:"), "{}", ran.text());
        assert!(!ran.text().contains("DIFFERENT"));
    }
}
