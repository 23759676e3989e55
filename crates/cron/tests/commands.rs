//! `%` in commands, as cron(8) takes it.

use super::kit::only_entry;

#[test]
fn a_percent_sign_begins_the_input_and_is_a_newline_in_it() {
    // The text behind the schedule, the command, the input.
    let cases = [
        ("date", "date", ""),
        ("date +\\%H\\%M", "date +%H%M", ""),
        (
            "mail -s \"It's 10pm\" joe%Joe,%%Where are your kids?%",
            "mail -s \"It's 10pm\" joe",
            "Joe,\n\nWhere are your kids?\n",
        ),
        ("cat%one\\%two%three", "cat", "one%two\nthree\n"),
        ("cat%", "cat", ""),
        ("cat%%", "cat", "\n"),
        ("%cat", "", "cat\n"),
        // A backslash of a command escapes a backslash too.
        ("a\\\\b", "a\\b", ""),
        ("a\\\\%b", "a\\", "b\n"),
        ("a\\\\\\%b", "a\\%b", ""),
        ("a\\nb\\", "a\\nb\\", ""),
        // One of an input escapes a percent sign alone.
        ("cat%a\\\\b\\n", "cat", "a\\\\b\\n\n"),
        ("cat%a\\\\%b", "cat", "a\\%b\n"),
        ("cat%a\\", "cat", "a\\\n"),
        ("écho \\%é%é", "écho %é", "é\n"),
        ("a  b  ", "a  b  ", ""),
    ];
    for (text, command, input) in cases {
        let found = only_entry(&format!("* * * * *\t {text}\n"));
        assert_eq!(found, (command.to_string(), input.to_string()), "{text:?}");
    }
}
