//! How workers are stopped.

use super::*;

#[test]
fn a_stop_signal_is_one_that_can_be_sent_or_15_with_a_warning() {
    for number in [1, 31, 35, 64] {
        let spec = accepted(&format!("[app_main]\nsmart_stop_signal={number}\n"));
        assert_eq!(spec.apps[0].stop_signal, number);
    }
    // The C library keeps 32 to 34 for itself.
    for wrong in ["0", "32", "34", "65", "INT"] {
        let text = format!("[app_main]\nsmart_stop_signal={wrong}\n");
        let spec = warned(&text, 9, &["is read as 15", "1 to 31 and 35 to 64 can be sent"]);
        assert_eq!(spec.apps[0].stop_signal, 15, "{wrong}");
    }
}
