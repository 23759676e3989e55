//! Variables of the environment that a program ends for the lack of.

/// The variable that a program lacks, by its last lines: `os.environ[…]` of Python, django-environ,
/// python-decouple, pydantic-settings.
pub fn in_output(output: &str) -> Option<String> {
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
    let named = named.map(str::to_owned).or_else(|| of_settings(output));
    named.filter(|name| !name.is_empty() && name.chars().all(sign))
}

/// The first field that a class of settings of pydantic lacks, as its variable is called unless the
/// class says otherwise. Other classes check what users send, not variables.
fn of_settings(output: &str) -> Option<String> {
    let lines: Vec<&str> = output.lines().collect();
    let at = lines.iter().rposition(|line| line.contains("validation error"))?;
    let class = lines[at].rsplit_once(" for ")?.1.trim();
    let is_settings = ["Settings", "Config", "Env"].iter().any(|word| class.contains(word))
        || output.contains("pydantic_settings");
    let lacks = |pair: &&[&str]| {
        !pair[0].starts_with(char::is_whitespace)
            && pair[1].trim().to_ascii_lowercase().starts_with("field required")
    };
    let field = lines[at + 1..].windows(2).find(lacks).filter(|_| is_settings)?[0];
    Some(field.trim().to_ascii_uppercase())
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
            assert_eq!(in_output(&output).as_deref(), wanted, "{output}");
        }
    }

    #[test]
    fn a_setting_of_pydantic_that_is_missing_is_named_as_a_variable() {
        let second = "pydantic_core._pydantic_core.ValidationError: 2 validation errors for Settings\n\
                      port\n  Input should be a valid integer [type=int_parsing, input_value='x']\n    \
                      For further information visit https://errors.pydantic.dev/2.10/v/int_parsing\n\
                      api_token\n  Field required [type=missing, input_value={}, input_type=dict]\n    \
                      For further information visit https://errors.pydantic.dev/2.10/v/missing\n";
        let first = "pydantic.error_wrappers.ValidationError: 1 validation error for AppConfig\n\
                     api_token\n  field required (type=value_error.missing)\n";
        let other = "ValidationError: 1 validation error for Item\nname\n  Field required [x]\n";
        let traced = format!("  File \"/x/pydantic_settings/main.py\", line 1\n{other}");
        let nested = first.replace("api_token", "database.host");
        for (output, wanted) in [
            (second, Some("API_TOKEN")),
            (first, Some("API_TOKEN")),
            (&traced, Some("NAME")),
            (other, None),
            (&nested, None),
        ] {
            assert_eq!(in_output(output).as_deref(), wanted, "{output}");
        }
    }

    #[test]
    fn the_help_has_the_command_that_sets_it() {
        assert!(help("shop", "KEY").contains("mfserv env set shop KEY=VALUE"));
    }
}
