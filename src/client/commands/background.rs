//! What works on after its command: in a context of its own, until it is ended or the client ends.

use std::sync::{Arc, Weak};

use super::{CommandContext, CommandState, ContentPipes, LocalControl, LoginSleep};
use crate::client::download::DownloadOptions;
use crate::client::engine::ClientEngine;
use crate::client::jobs::RunningJob;
use crate::client::ui::message::{Message, MessageBody};
use crate::client::ui::output::{MessageSink, Output};
use crate::client::ui::password::PasswordSource;

/// A context that does not keep the client from ending.
pub(super) struct BackgroundContext {
    engine: Weak<ClientEngine>,
    output: Output,
    local: Arc<dyn LocalControl>,
    state: Arc<CommandState>,
    passwords: Arc<dyn PasswordSource>,
    download_options: DownloadOptions,
    login_sleep: LoginSleep,
}

impl BackgroundContext {
    /// For a watch or a follow: the command that has begun it ends before it.
    pub fn of(context: &CommandContext, job: &RunningJob) -> Self {
        let output = context.output.of_none().of_job(job.job(), context.client_output.as_ref());
        Self {
            engine: Arc::downgrade(&context.engine),
            output: Output::new(Arc::new(WithoutProgress(output))),
            local: Arc::clone(&context.local),
            state: Arc::new(CommandState::of_job(job.cancelled())),
            passwords: Arc::clone(&context.passwords),
            download_options: context.download_options.clone(),
            login_sleep: Arc::clone(&context.login_sleep),
        }
    }

    /// `None`: the client has ended.
    pub fn upgrade(&self) -> Option<CommandContext> {
        Some(CommandContext {
            engine: self.engine.upgrade()?,
            output: self.output.clone(),
            client_output: None,
            pipes: ContentPipes::default(),
            local: Arc::clone(&self.local),
            state: Arc::clone(&self.state),
            passwords: Arc::clone(&self.passwords),
            download_options: self.download_options.clone(),
            login_sleep: Arc::clone(&self.login_sleep),
        })
    }
}

/// Progress is that of a command.
struct WithoutProgress(Output);

impl MessageSink for WithoutProgress {
    fn receive(&self, message: Message) {
        if !matches!(message.body, MessageBody::Progress(_)) {
            self.0.send(message.body);
        }
    }

    fn has_ended(&self) -> bool {
        self.0.has_ended()
    }

    fn wants_progress(&self) -> bool {
        false
    }
}
