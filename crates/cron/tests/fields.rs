//! The five fields, and the words with `@`.

use mfserv_cron::{LocalMinute, Schedule, Severity};

use super::kit::{minute, only_problem, schedule};

const FIRSTS: [&str; 5] = ["minute", "hour", "day of month", "month", "day of week"];

/// The values of a field of a schedule that matches whatever the other fields are.
fn values(field: usize, text: &str) -> Vec<i64> {
    let mut fields = ["0-59", "0-23", "1-31", "1-12", "*"];
    fields[field] = text;
    if field == 4 {
        fields[2] = "*";
    }
    let schedule = schedule(&fields.join(" "));
    let parts = |minute: LocalMinute| {
        let time = minute.civil();
        let weekday = time.weekday().to_sunday_zero_offset();
        [time.minute(), time.hour(), time.day(), time.month(), weekday].map(i64::from)
    };
    // Every minute of an hour, hour of a day and day of a year is in one of these.
    let mut times: Vec<String> = (0..60).map(|m| format!("2026-01-01T00:{m:02}")).collect();
    times.extend((0..24).map(|h| format!("2026-01-01T{h:02}:00")));
    times.extend((1..=12).flat_map(|m| (1..=28).map(move |d| format!("2026-{m:02}-{d:02}T00:00"))));
    times.extend((29..=31).map(|d| format!("2026-01-{d}T00:00")));
    let minutes = times.iter().map(|time| minute(time)).filter(|m| schedule.matches(*m));
    let mut values: Vec<i64> = minutes.map(|minute| parts(minute)[field]).collect();
    values.sort_unstable();
    values.dedup();
    values
}

#[test]
fn a_field_has_lists_ranges_steps_and_names() {
    let all = |low, high| (low..=high).collect::<Vec<i64>>();
    let cases: &[(usize, &str, Vec<i64>)] = &[
        (0, "*", all(0, 59)),
        (0, "7", vec![7]),
        (0, "007", vec![7]),
        (0, "0,59", vec![0, 59]),
        (0, "10-12", vec![10, 11, 12]),
        (0, "5-5", vec![5]),
        (0, "*/20", vec![0, 20, 40]),
        (0, "*/25", vec![0, 25, 50]),
        (0, "3-20/7", vec![3, 10, 17]),
        (0, "1,3-5,50-59/4,2", vec![1, 2, 3, 4, 5, 50, 54, 58]),
        (0, "5,*/30", vec![0, 5, 30]),
        (0, "*/1", all(0, 59)),
        (1, "*", all(0, 23)),
        (1, "8-18/5", vec![8, 13, 18]),
        (1, "23", vec![23]),
        (2, "1", vec![1]),
        (2, "31", vec![31]),
        // The step counts from 1, the first value.
        (2, "*/10", vec![1, 11, 21, 31]),
        (3, "*/5", vec![1, 6, 11]),
        (3, "jan,DEC", vec![1, 12]),
        (3, "Feb-apr", vec![2, 3, 4]),
        (3, "may-jul/2,aug,sep,oct-11", vec![5, 7, 8, 9, 10, 11]),
        (3, "jun", vec![6]),
        (3, "nov", vec![11]),
        (4, "0", vec![0]),
        (4, "7", vec![0]),
        (4, "SUN", vec![0]),
        (4, "mon-FRI", vec![1, 2, 3, 4, 5]),
        (4, "tue,wed,thu", vec![2, 3, 4]),
        (4, "5-7", vec![0, 5, 6]),
        (4, "sat", vec![6]),
        (4, "6-7", vec![0, 6]),
        (4, "*", all(0, 6)),
    ];
    for (field, text, expected) in cases {
        assert_eq!(&values(*field, text), expected, "{} {text}", FIRSTS[*field]);
    }
}

#[test]
fn a_wrong_field_says_where_why_and_what_to_do() {
    // The field, its text, the character of the field, why, help.
    let cases: &[(usize, &str, u32, &str, &str)] = &[
        (0, "60", 1, "60 is not in 0 to 59", "write 0 to 59"),
        (0, "99999999999999999999", 1, "is not in 0 to 59", "write 0 to 59"),
        (0, "-1", 1, "a value is missing", "write 0 to 59"),
        (0, "1,", 3, "a value is missing", "write 0 to 59"),
        (0, "1,,2", 3, "a value is missing", "write 0 to 59"),
        (0, "1-", 3, "a value is missing", "write 0 to 59"),
        (0, "x", 1, "x is no minute", "write 0 to 59"),
        (0, "mon", 1, "mon is no minute", "write 0 to 59"),
        (0, "1st", 1, "1st is no minute", "write 0 to 59"),
        (0, "5/10", 1, "not for one value", "write 5-59/STEP"),
        (0, "1,5/10", 3, "not for one value", "write 5-59/STEP"),
        (0, "*/0", 3, "the step behind / is 0", "above 0"),
        (0, "*/", 3, "the step behind / is missing", "above 0"),
        (0, "*/-5", 3, "the step behind / is missing", "above 0"),
        (0, "*/x", 3, "the step behind / is x", "above 0"),
        (0, "1-9/0", 5, "the step behind / is 0", "above 0"),
        (0, "5-64/30", 3, "64 is not in 0 to 59", "write 0 to 59"),
        (0, "50-10", 1, "goes backward", "write 50-59,0-10"),
        (0, "50-10,9-8", 7, "goes backward", "write 9-59,0-8"),
        (0, "é", 1, "a value is missing", "write 0 to 59"),
        (1, "24", 1, "24 is not in 0 to 23", "write 0 to 23"),
        (1, "22-6", 1, "goes backward", "write 22-23,0-6"),
        (2, "0", 1, "0 is not in 1 to 31", "write 1 to 31"),
        (2, "32", 1, "32 is not in 1 to 31", "write 1 to 31"),
        (2, "L", 1, "L is no day of month", "write 1 to 31"),
        (3, "0", 1, "0 is not in 1 to 12", "write 1 to 12, or jan to dec"),
        (3, "13", 1, "13 is not in 1 to 12", "or jan to dec"),
        (3, "janu", 1, "janu is no month", "or jan to dec"),
        (3, "mon", 1, "mon is no month", "or jan to dec"),
        (4, "8", 1, "8 is not in 0 to 7", "write 0 to 7, or sun to sat"),
        (4, "monday", 1, "monday is no day of week", "or sun to sat"),
        (4, "fri-sun", 1, "goes backward", "write 5-7: Sunday is 0 and 7"),
        (4, "7-2", 1, "goes backward", "write 0-2: Sunday is 0 and 7"),
        (4, "5-1", 1, "goes backward", "write 5-7,0-1"),
    ];
    for (field, text, column, why, help) in cases {
        let mut fields = ["*"; 5];
        fields[*field] = text;
        let problem = only_problem(&format!("{} true", fields.join(" ")));
        assert_eq!(problem.severity, Severity::Error, "{text}");
        assert_eq!(problem.what, format!("the {} {text} is wrong", FIRSTS[*field]));
        assert_eq!(problem.column, Some(2 * *field as u32 + column), "{text}: {problem:?}");
        assert!(problem.why.contains(why), "{text}: {problem:?}");
        assert!(problem.help.contains(help), "{text}: {problem:?}");
    }
}

#[test]
fn a_doubtful_field_is_obeyed_as_cron_does_and_said() {
    let cases: &[(&str, &str, u32, &str)] = &[
        // The same as, the character, why.
        ("*5 * * * *", "* * * * *", 2, "obeys * and ignores 5"),
        ("0 1;2 * * *", "0 1 * * *", 4, "obeys 1 and ignores ;2"),
        ("0 0 1-5-7 * *", "0 0 1-5 * *", 8, "obeys 1-5 and ignores -7"),
        ("0 0 * */5.5 *", "0 0 * */5 *", 10, "ignores .5"),
        ("*/90 * * * *", "0 0-23 * * *", 3, "a step of 90 is longer than 0 to 59"),
        ("*/99999999999 * * * *", "0 0-23 * * *", 3, "is longer than 0 to 59"),
        ("0 8-12/5 * * *", "0 8 * * *", 8, "a step of 5 is longer than 8 to 12"),
        // As in cron(8), the rest of the list counts.
        ("50-10,30 * * * *", "30 * * * *", 1, "goes backward and holds no value"),
        ("0 0 30 2 *", "0 0 30 2 *", 1, "no year has a date"),
        ("0 0 31 4,6,9,11 *", "0 0 31 4,6,9,11 *", 1, "no year has a date"),
        ("0 0 31 2 */2", "0 0 31 2 */2", 1, "no year has a date"),
    ];
    for (text, same, column, why) in cases {
        let (schedule, problems) = Schedule::parse(text).unwrap();
        assert_eq!(problems.len(), 1, "{text}: {problems:?}");
        let problem = &problems[0];
        assert_eq!(problem.severity, Severity::Warning, "{text}");
        assert_eq!(problem.column, Some(*column), "{text}: {problem:?}");
        assert!(problem.why.contains(why), "{text}: {problem:?}");
        let same = super::kit::schedule(same);
        let minutes = (0..366 * 24 * 6).map(|n| n * 10).chain(0..3000);
        let begin = minute("2028-01-01T00:00").civil();
        for n in minutes {
            let minute =
                minute(&begin.saturating_add(jiff::Span::new().minutes(n)).to_string()[..16]);
            assert_eq!(schedule.matches(minute), same.matches(minute), "{text} {minute}");
        }
    }
    for text in
        ["*/30 * * * *", "0 0 29 2 *", "0 0 31 2 1", "*/59 * * * *", "0-4/4 * * * *", "5-5 * * * *"]
    {
        assert_eq!(Schedule::parse(text).unwrap().1, [], "{text}");
    }
}

#[test]
fn a_date_matches_both_days_where_one_begins_with_a_star_and_either_where_none_does() {
    // February 2026 begins with a Sunday and has 28 days.
    let cases: &[(&str, &[i8])] = &[
        ("0 0 1,15 * 5", &[1, 6, 13, 15, 20, 27]),
        ("0 0 1,15 * *", &[1, 15]),
        ("0 0 * * 5", &[6, 13, 20, 27]),
        // First characters count, not all values.
        ("0 0 */2 * sun", &[1, 15]),
        ("0 0 1-7 * */3", &[1, 4, 7]),
        ("0 0 *,1 * 5", &[6, 13, 20, 27]),
        ("0 0 3,* * 5", &(1..=28).collect::<Vec<i8>>()),
        ("0 0 1-31 * 5", &(1..=28).collect::<Vec<i8>>()),
        ("0 0 13 * 0-7", &(1..=28).collect::<Vec<i8>>()),
        ("0 0 31 * 3", &[4, 11, 18, 25]),
        ("0 0 13 3 5", &[]),
    ];
    for (text, days) in cases {
        let schedule = schedule(text);
        let is_there = |d: &i8| schedule.matches(minute(&format!("2026-02-{d:02}T00:00")));
        let found: Vec<i8> = (1..=28).filter(is_there).collect();
        assert_eq!(&found, days, "{text}");
    }
}

#[test]
fn a_word_with_an_at_sign_stands_for_five_fields() {
    let words = [
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        ("@monthly", "0 0 1 * *"),
        ("@weekly", "0 0 * * 0"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@hourly", "0 * * * *"),
    ];
    for (word, fields) in words {
        let (word, fields) = (schedule(word), schedule(fields));
        assert_eq!(word.goes_by_clock(), fields.goes_by_clock(), "{word}");
        assert!(!word.is_reboot());
        for n in 0..366 * 48 {
            let time =
                jiff::civil::date(2028, 1, 1).at(0, 0, 0, 0) + jiff::Span::new().minutes(n * 30);
            let minute = minute(&time.to_string()[..16]);
            assert_eq!(word.matches(minute), fields.matches(minute), "{word} {minute}");
        }
    }
    let reboot = schedule("@reboot");
    assert!(reboot.is_reboot() && !reboot.goes_by_clock());
    assert!(!reboot.matches(minute("2026-01-01T00:00")));
    for word in ["@Daily", "@", "@dailyx", "@every_minute", "@REBOOT"] {
        let problem = only_problem(&format!("{word} true"));
        assert_eq!(problem.what, format!("{word} is no schedule"));
        assert!(problem.why.contains("@reboot") && problem.why.contains("lower case"));
        assert_eq!(problem.column, Some(1));
    }
}

#[test]
fn a_schedule_goes_by_the_clock_where_minute_or_hour_begin_with_a_star() {
    for text in ["* 1 * * *", "*/5 1 * * *", "5 * * * *", "5 */2 * * *", "*,5 1 * * *", "@hourly"] {
        assert!(schedule(text).goes_by_clock(), "{text}");
    }
    for text in ["5,* 1 * * *", "0-59 0-23 * * *", "30 2 * * *", "@daily", "0 5 */2 */2 */2"] {
        assert!(!schedule(text).goes_by_clock(), "{text}");
    }
}

#[test]
fn a_schedule_that_stands_alone_has_five_fields_and_no_more() {
    for (text, column, what) in [
        ("", 1, "the minute is missing"),
        ("  ", 3, "the minute is missing"),
        ("5", 2, "the hour is missing"),
        ("5 4 ", 5, "the day of month is missing"),
        ("* * * *", 8, "the day of week is missing"),
        ("* * * * * true", 11, "there is more than a schedule: true"),
        ("@daily x", 8, "there is more than a schedule: x"),
    ] {
        let problem = Schedule::parse(text).unwrap_err();
        assert_eq!((problem.column, &*problem.what), (Some(column), what), "{text:?}");
    }
    assert_eq!(schedule(" 1\t2  3 4 5 ").as_str(), "1 2 3 4 5");
    assert_eq!(schedule("@daily ").to_string(), "@daily");
}
