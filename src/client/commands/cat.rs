//! `cat` and `get -o -`: writes the content of one file to the output, in order, each byte once it is verified.
//!
//! Nothing else goes to that output, whatever happens: what a failed command has written is the beginning of the file.

use std::io::{self, Write};
use std::ops::ControlFlow::{Break, Continue};
use std::slice;
use std::sync::Arc;

use crossbeam_channel::{Receiver, bounded, select};

use super::content_pipes::ContentOutput;
use super::get::report_notes;
use super::get_select::select;
use super::{CommandContext, Verb};
use crate::client::cancel::{Cancelled, is_cancelled};
use crate::client::download::{ContentStream, DownloadOptions, DownloadOutcome, DownloadReport, SaveAs};
use crate::client::exit_code::ExitCode;
use crate::client::files::PathArg;
use crate::common::sync::lock;
use crate::common::threads;
use crate::common::types::NamedContent;

/// How the output came out.
enum Written {
    /// It has everything that the download could deliver.
    Complete,
    /// It takes no more.
    Failed(io::Error),
    /// The command was cancelled before the last byte.
    Interrupted,
    /// What was received cannot be read again.
    Unreadable(io::Error),
}

/// Writes the content of `file` to the context's output.
pub fn run(context: &CommandContext, file: &PathArg) -> ExitCode {
    let fail = |code, why: String| context.report_error(Verb::Cat.name(), code, why);
    let Some(output) = context.pipes.output.clone() else {
        return fail(ExitCode::Usage, "the content of a file cannot be written among JSON".into());
    };
    let selection = match select(&context.server, None, slice::from_ref(file)) {
        Ok(selection) => selection,
        Err(error) => return fail((&error).into(), error.to_string()),
    };
    for note in &selection.notes {
        context.output.info(note);
    }
    let [item] = selection.items.as_slice() else {
        return fail(ExitCode::NotFound, format!("{}: no active peer has published it", file.text));
    };
    let stream = Arc::new(ContentStream::new(item.content.size));
    let written = match start_writing(context, &stream, output) {
        Ok(written) => written,
        Err(error) => return fail(ExitCode::Internal, error.to_string()),
    };
    let outcome = download(context, item, &stream);
    let cancelled = context.state.cancelled();
    let written = select! {
        recv(written) -> written => written.ok(),
        recv(cancelled) -> _ => written.try_recv().ok(),
    };
    match (written, outcome) {
        (Some(Written::Failed(error)), _) => context.output.content_failed(&error),
        (Some(Written::Unreadable(error)), _) => fail(ExitCode::LocalFile, format!("{}: {error}", item.name)),
        (_, Some(DownloadOutcome::Failed(error))) => fail((&error).into(), format!("{}: {error}", item.name)),
        (None | Some(Written::Interrupted), _) => fail(ExitCode::Interrupted, format!("{}: interrupted", item.name)),
        (Some(Written::Complete), Some(_)) => ExitCode::Success,
        (Some(Written::Complete), None) => fail(ExitCode::Internal, "the download has no outcome".into()),
    }
}

/// Starts the thread that writes. It tells how it ended; if it could not write everything, it cancels the command.
fn start_writing(
    context: &CommandContext,
    stream: &Arc<ContentStream>,
    output: ContentOutput,
) -> io::Result<Receiver<Written>> {
    let (sender, written) = bounded(1);
    let (stream, state) = (stream.clone(), context.state.clone());
    let cancelled = state.cancelled();
    let write_all = move || {
        let end = write_content(&stream, &mut *lock(&output), &cancelled);
        let is_complete = matches!(end, Written::Complete);
        let _ = sender.send(end);
        if !is_complete {
            state.cancel_command(&cancelled);
        }
    };
    threads::spawn("output", write_all)?;
    Ok(written)
}

fn write_content(stream: &ContentStream, output: &mut dyn Write, cancelled: &Cancelled) -> Written {
    let mut end = Written::Complete;
    let read = stream.read_to(|bytes| {
        if let Err(error) = output.write_all(bytes) {
            end = Written::Failed(error);
        } else if is_cancelled(cancelled) {
            end = Written::Interrupted;
        }
        if matches!(end, Written::Complete) { Continue(()) } else { Break(()) }
    });
    match (end, read) {
        (Written::Complete, Err(error)) => Written::Unreadable(error),
        (Written::Complete, Ok(())) => output.flush().map_or_else(Written::Failed, |()| Written::Complete),
        (end, _) => end,
    }
}

fn download(context: &CommandContext, item: &NamedContent, stream: &ContentStream) -> Option<DownloadOutcome> {
    let options = DownloadOptions { save_as: SaveAs::Unnamed, ..context.download_options.clone() };
    let items = slice::from_ref(item);
    let outcome = std::cell::RefCell::new(None);
    context.downloader.fetch(items, &options, &context.state.cancelled(), &|report| {
        stream.on_report(&report);
        report_notes(context, items, &report);
        if let DownloadReport::Finished(_, finished) = report {
            outcome.replace(Some(finished));
        }
    });
    stream.end();
    outcome.into_inner()
}

#[cfg(test)]
#[path = "cat_tests.rs"]
mod tests;
