//! `halley config`: the configuration in effect as a file that gives the same, with where each value is from.

use std::io::Write;

use clap::ValueEnum;

use super::{Failure, output};
use crate::config::{Config, Setting, Source, option_table};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// check: only check it, print nothing; table: every option as a Markdown table
    #[arg(value_enum)]
    what: Option<What>,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    Check,
    Table,
}

pub(super) fn run(
    args: &Args,
    config: &Config,
    settings: &[Setting],
    out: &mut dyn Write,
) -> Result<(), Failure> {
    match args.what {
        Some(What::Check) => config.check_for_server().map_err(Failure::from),
        Some(What::Table) if args.json => json(&option_table(), out),
        Some(What::Table) => table(out),
        None if args.json => json(&settings, out),
        None => settings
            .iter()
            .try_for_each(|setting| show(setting, config, out)),
    }
}

fn json<T: serde::Serialize>(value: &T, out: &mut dyn Write) -> Result<(), Failure> {
    let text = serde_json::to_string(value)
        .map_err(|error| Failure::Io("write the output", error.into()))?;
    writeln!(out, "{text}").map_err(output)
}

/// One line of TOML. What a file cannot hold, or should not, is a comment.
fn show(setting: &Setting, config: &Config, out: &mut dyn Write) -> Result<(), Failure> {
    let Setting {
        name, values, env, ..
    } = setting;
    let source = match setting.source {
        Source::Flag => format!("flag --{name}"),
        Source::Environment => format!("environment {env}"),
        Source::File => "configuration file".to_owned(),
        Source::Default => "default".to_owned(),
    };
    let line = match values.as_slice() {
        [] if name == "connections-max" => {
            format!(
                "# {name} = {}  # {source}, from the open-file limit",
                config.limits.connections_max
            )
        }
        [] => format!("# {name} is not set"),
        _ if setting.secret => format!("# {name} is hidden  # {source}"),
        [value] if name == "config" => format!("# read from {value}  # {source}"),
        [value] if !setting.repeatable => format!("{name} = {}  # {source}", toml_value(value)),
        _ => {
            let items: Vec<String> = values
                .iter()
                .map(|value| toml::Value::from(value.as_str()).to_string())
                .collect();
            format!("{name} = [{}]  # {source}", items.join(", "))
        }
    };
    writeln!(out, "{line}").map_err(output)
}

/// Numbers without quotes, all else with.
fn toml_value(text: &str) -> String {
    match text.parse::<i64>() {
        Ok(number) => number.to_string(),
        Err(_) => toml::Value::from(text).to_string(),
    }
}

fn table(out: &mut dyn Write) -> Result<(), Failure> {
    writeln!(
        out,
        "| option | environment | default | what it does |\n|---|---|---|---|"
    )
    .map_err(output)?;
    for row in option_table() {
        let help = row.help.replace('|', "\\|");
        let default = match row.default.as_str() {
            "" => String::new(),
            // What is worked out is told in words, what is written stands as it is.
            words if words.contains(' ') => words.to_owned(),
            written => format!("`{written}`"),
        };
        writeln!(
            out,
            "| `--{}` | `{}` | {default} | {help} |",
            row.name, row.env
        )
        .map_err(output)?;
    }
    Ok(())
}
