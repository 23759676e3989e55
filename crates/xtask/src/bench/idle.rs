use clap::Args;
use mfserv_core::Diagnostic;
/// x
#[derive(Debug, Args)]
pub struct Idle {}
impl Idle {
    pub fn run(self) -> Result<(), Diagnostic> {
        Ok(())
    }
}
