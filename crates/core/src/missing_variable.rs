//! Variables of the environment that a program ends for the lack of.

/// The variable that a program lacks, by its last lines: `os.environ[…]` of Python, django-environ,
/// python-decouple.
pub fn in_output(output: &str) -> Option<&str> {
    let sign = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let has_environ = output.contains("environ[");
    let named = output.lines().rev().map(str::trim).find_map(|line| {
        let of_python = line.strip_prefix("KeyError: '").filter(|_| has_environ);
        let of_python = of_python.and_then(|rest| rest.strip_suffix('\''));
        let of_django = || line.split_once("Set the ")?.1.strip_suffix(" environment variable");
        let of_decouple = || {
            let (name, _) = line.split_once("UndefinedValueError: ")?.1.split_once(" not found")?;
            Some(name)
        };
        of_python.or_else(of_django).or_else(of_decouple)
    });
    named.filter(|name| !name.is_empty() && name.chars().all(sign))
}

/// How a plugin gets it, also one that has not been deployed yet.
pub fn help(plugin: &str, variable: &str) -> String {
    format!(
        "`mfserv deploy … --env {variable}=VALUE` (or `--secret-file {variable}=FILE`) deploys it with that \
         variable, `mfserv env set {plugin} {variable}=VALUE` gives it to what is deployed, and a line in its \
         .env does while it is worked on"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_that_a_program_has_ended_for_is_found_in_what_it_has_said() {
        let key = |line: &str| format!("  File \"a.py\", line 1\n    {line}\nKeyError: 'DB_1'\n");
        for (output, wanted) in [
            (key("url = os.environ['DB_1']"), Some("DB_1")),
            (key("url = config['DB_1']"), None),
            ("KeyError: 'a'\nos.environ[".into(), None),
            (
                "django.core.exceptions.ImproperlyConfigured: Set the SECRET_KEY environment variable\n"
                    .into(),
                Some("SECRET_KEY"),
            ),
            (
                "decouple.UndefinedValueError: SECRET_KEY not found. Declare it as envvar or \
                 define a default value.\n"
                    .into(),
                Some("SECRET_KEY"),
            ),
            ("Error: bind: address in use\n".into(), None),
        ] {
            assert_eq!(in_output(&output), wanted, "{output}");
        }
        assert!(help("shop", "KEY").contains("mfserv env set shop KEY=VALUE"));
    }
}
