//! From a request to what is answered.
//!
//! [`decide`] knows the request, what was configured, the time and what paths lead to, and nothing
//! else: no socket, no task, no worker. It says what the response is, or what has to be done first
//! where a disk may be waited for; then it is asked again.

use crate::answer::content;
use crate::answer::directory::Listing;
use crate::answer::error_page::ALLOW;
use crate::answer::failure;
use crate::answer::response::{Body, Fields, Files, Refusal, Response};
use crate::files::lookup::{Load, Looked, Missed};
use crate::files::root::Miss;
use crate::host::site::Site;
use crate::message::head;
use crate::message::request::{Method, RequestHead, TargetForm};
use crate::message::target::{TargetPath, directory_location};

/// What follows from a request.
#[derive(Debug)]
pub(crate) enum Decision {
    Respond(Response),
    /// A path has to be looked up where a disk may be waited for; then this is to be decided again.
    Load(Load),
    /// A directory has to be read and listed.
    List(Listing),
}

/// Why there is no response yet.
enum Otherwise {
    Refuse(Refusal),
    Load(Load),
    List(Listing),
}

impl From<Refusal> for Otherwise {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse(refusal)
    }
}

/// Decides what is answered at the time `now_s`, which is what Date will say.
pub(crate) fn decide(
    site: &Site,
    head: &RequestHead<'_>,
    files: &impl Files,
    now_s: u64,
) -> Decision {
    let response = match head.method {
        Method::Get | Method::Head => get(site, head, files, now_s),
        Method::Options => Ok(options(site, head)),
        Method::Other(_) => Err(Refusal::of(405).into()),
    };
    let refusal = match response {
        Ok(response) => return Decision::Respond(response),
        Err(Otherwise::Load(load)) => return Decision::Load(load),
        Err(Otherwise::List(listing)) => return Decision::List(listing),
        Err(Otherwise::Refuse(refusal)) => refusal,
    };
    match failure::explain(site, head, files, refusal) {
        Ok(response) => Decision::Respond(response),
        Err(load) => Decision::Load(load),
    }
}

fn get(
    site: &Site,
    head: &RequestHead<'_>,
    files: &impl Files,
    now_s: u64,
) -> Result<Response, Otherwise> {
    let target = TargetPath::decode(head.path).map_err(|e| Refusal::of(e.status()))?;
    if target.has_dot_file && !site.config.dot_files {
        return Err(Refusal::of(404).into());
    }
    if let Some(why) = target.names_nothing {
        return not_found(site, head, files, now_s, why.status());
    }
    let (path, is_dir) = (&*target.relative, target.is_dir);
    match files.look_up(path, is_dir, head.accept_encoding) {
        Ok(Looked::File(selected)) => Ok(content::of_file(site, head, selected, now_s)?),
        Ok(Looked::Redirect) => {
            let mut refusal = Refusal::of(301);
            let location = directory_location(path, head.query);
            head::field(&mut refusal.fields, "Location", &location);
            Err(refusal.into())
        }
        Ok(Looked::Listing(dir)) => Err(Otherwise::List(Listing::new(site, head, dir, path))),
        Err(Missed::Elsewhere) => Err(load(path, is_dir)),
        Err(Missed::Miss(Miss::NotFound)) => not_found(site, head, files, now_s, 404),
        Err(Missed::Miss(miss)) => Err(failure::missed(path, miss).into()),
    }
}

/// Answers a path that names nothing: with the page of a single-page app, or with `status`.
fn not_found(
    site: &Site,
    head: &RequestHead<'_>,
    files: &impl Files,
    now_s: u64,
    status: u16,
) -> Result<Response, Otherwise> {
    let Some(spa) = &site.config.spa else {
        return Err(Refusal::of(status).into());
    };
    match files.look_up(spa.as_bytes(), false, head.accept_encoding) {
        Ok(Looked::File(selected)) => Ok(content::of_file(site, head, selected, now_s)?),
        Err(Missed::Elsewhere) => Err(load(spa.as_bytes(), false)),
        Ok(_) | Err(Missed::Miss(_)) => Err(Refusal::of(404).into()),
    }
}

fn load(path: &[u8], is_dir: bool) -> Otherwise {
    let path = path.to_vec();
    Otherwise::Load(Load { path, is_dir })
}

fn options(site: &Site, head: &RequestHead<'_>) -> Response {
    let mut own = Vec::with_capacity(256);
    head::field(&mut own, "Allow", ALLOW.as_bytes());
    if head.form != TargetForm::Asterisk {
        site.options_fields(head, &mut own);
    }
    Response {
        status: 204,
        fields: Fields::own(own),
        body: Body::Absent,
        complaints: Vec::new(),
    }
}

#[cfg(test)]
mod tests;
