//! Errors by injection: codes that no driver returned.

use super::*;

const ILLEGAL_ADDRESS: u32 = 700;
const INVALID_VALUE: u32 = 1;

#[test]
fn a_device_that_is_lost_stays_lost_and_says_what_it_was_first() {
    let faults = Faults::new("card");
    faults.check().unwrap();
    let first = faults.result("running rms_norm", ILLEGAL_ADDRESS, || "an illegal address".into());
    let expected = "card is lost: an illegal address, found while running rms_norm";
    assert!(matches!(first, Err(Error::DeviceLost { .. })), "{first:?}");
    assert_eq!(first.unwrap_err().to_string(), expected);
    assert_eq!(faults.check().unwrap_err().to_string(), expected);
    let later = faults.result("reading", 719, || "launch failed".into());
    assert_eq!(later.unwrap_err().to_string(), expected);
}

#[test]
fn an_error_that_is_not_sticky_leaves_the_device() {
    let faults = Faults::new("card");
    let error = faults.result("launching copy", INVALID_VALUE, || "invalid argument".into()).unwrap_err();
    assert!(matches!(error, Error::KernelRun { .. }), "{error:?}");
    assert!(error.to_string().contains("launching copy"), "{error}");
    let error = faults.result("making a graph", OUT_OF_MEMORY, || "out of memory".into()).unwrap_err();
    assert!(matches!(error, Error::OutOfMemory { .. }), "{error:?}");
    faults.check().unwrap();
    faults.result("nothing", SUCCESS, || unreachable!()).unwrap();
}
