//! What was configured, checked and made ready for use: limits, media types, rules about fields.

use std::borrow::Cow;
use std::path::Path;

use crate::host::config::Config;
use crate::host::mime::{MimeError, MimeTypes};
use crate::host::rules::{CacheRules, Cors, CorsConfig, ExtraHeaders, RuleError};
use crate::message::head::field;
use crate::message::request::{self, RequestHead};
use crate::message::validators::{Validators, format_date};

/// Why a configuration is not usable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SiteError {
    /// A MIME override.
    #[error("--mime: {0}")]
    Mime(MimeError),
    /// A rule about header fields.
    #[error("{option}: {why}")]
    Rule {
        /// The option that it came with.
        option: &'static str,
        /// What is wrong.
        why: RuleError,
    },
    /// A file named by an option does not lie below the root.
    #[error(
        "{option} {path:?}: not a file below the served directory (write its path relative to that directory)"
    )]
    Path {
        /// The option.
        option: &'static str,
        /// The path.
        path: String,
    },
    /// A status that has no error page.
    #[error("--error-page {0}: not a status that is answered with a page (use 400 to 599)")]
    Status(u16),
    /// A pace at which every client would count as too slow.
    #[error(
        "--rate {rate}: below --min-send-rate {min}, so every long answer would be cut off (raise --rate, or lower --min-send-rate)"
    )]
    Rate {
        /// The pace asked for.
        rate: u64,
        /// What clients must take.
        min: u64,
    },
    /// More header fields than a request can have.
    #[error("--max-headers {0}: at most {most} are possible (use a smaller number)", most = request::MAX_HEADERS)]
    Headers(usize),
}

/// A configuration that was found to be usable.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) config: Config,
    pub(crate) request_limits: request::Limits,
    mime: MimeTypes,
    cache_rules: CacheRules,
    extra: ExtraHeaders,
    cors: Cors,
    /// Extra headers and what CORS adds to every answer.
    always: Vec<u8>,
}

impl Site {
    pub(crate) fn new(mut config: Config) -> Result<Self, SiteError> {
        check_paths(&mut config)?;
        let rule = |option| move |why| SiteError::Rule { option, why };
        let mime = MimeTypes::new(config.mime.iter().cloned()).map_err(SiteError::Mime)?;
        let cache_rules =
            CacheRules::new(&config.cache_control).map_err(rule("--cache-control"))?;
        let extra = ExtraHeaders::new(&config.headers).map_err(rule("--header"))?;
        let origins = CorsConfig {
            origins: config.cors.clone(),
            allow_headers: config.cors_headers.clone(),
            ..CorsConfig::default()
        };
        let cors = Cors::new(&origins).map_err(|why| {
            let option = match why {
                RuleError::BadName(_) => "--cors-header",
                _ => "--cors",
            };
            SiteError::Rule { option, why }
        })?;
        let (rate, min) = (config.limits.rate, config.limits.min_send_rate);
        if rate > 0 && rate < min {
            return Err(SiteError::Rate { rate, min });
        }
        if config.limits.header_count > request::MAX_HEADERS {
            return Err(SiteError::Headers(config.limits.header_count));
        }
        let request_limits = request::Limits {
            request_line_bytes: config.limits.header_bytes.min(8 * 1024),
            head_bytes: config.limits.header_bytes,
            headers: config.limits.header_count,
        };
        let mut always = extra.block().to_vec();
        always.extend_from_slice(&cors.static_block());
        if cors.varies_by_origin() {
            field(&mut always, "Vary", b"Origin");
        }
        Ok(Self {
            config,
            request_limits,
            mime,
            cache_rules,
            extra,
            cors,
            always,
        })
    }

    /// Media type of the file at this path.
    pub(crate) fn media_type(&self, path: &[u8]) -> Cow<'_, str> {
        self.mime.media_type(path)
    }

    /// Fields of every answer with the file at this path.
    pub(crate) fn file_fields(&self, path: &[u8], validators: &Validators, out: &mut Vec<u8>) {
        if let Some(tag) = &validators.etag {
            field(out, "ETag", tag.as_bytes());
        }
        if let Some(seconds) = validators.last_modified_s {
            field(out, "Last-Modified", &format_date(seconds));
        }
        field(out, "Accept-Ranges", b"bytes");
        if let Some(value) = self.cache_rules.cache_control(path) {
            field(out, "Cache-Control", value.as_bytes());
        }
        out.extend_from_slice(&self.always);
    }

    /// Fields of every answer.
    pub(crate) fn fields_of_all(&self) -> &[u8] {
        &self.always
    }

    /// Fields of answers that carry no file.
    pub(crate) fn other_fields(&self, head: &RequestHead<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.always);
        self.origin_fields(head, out);
    }

    /// What this request's Origin adds to its answer.
    pub(crate) fn origin_fields(&self, head: &RequestHead<'_>, out: &mut Vec<u8>) {
        self.cors.write_response(head.origin, out);
    }

    /// The answer to OPTIONS, beside Allow.
    pub(crate) fn options_fields(&self, head: &RequestHead<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(self.extra.block());
        self.cors.write_preflight(head, out);
        if self.cors.varies_by_origin() {
            field(out, "Vary", b"Origin");
        }
    }
}

/// Makes the configured paths relative to the root, as request paths are.
fn check_paths(config: &mut Config) -> Result<(), SiteError> {
    let spa = config.spa.iter_mut().map(|path| ("--spa", path));
    let index = config.index.iter_mut().map(|path| ("--index", path));
    if let Some(&status) = config.error_pages.keys().find(|s| !(400..600).contains(*s)) {
        return Err(SiteError::Status(status));
    }
    let pages = config
        .error_pages
        .values_mut()
        .map(|path| ("--error-page", path));
    for (option, path) in spa.chain(index).chain(pages) {
        let below = path.trim_start_matches('/').to_owned();
        let climbs = Path::new(&below)
            .components()
            .any(|part| !matches!(part, std::path::Component::Normal(_)));
        if below.is_empty() || climbs || below.ends_with('/') || below.contains('\0') {
            return Err(SiteError::Path {
                option,
                path: path.clone(),
            });
        }
        *path = below;
    }
    Ok(())
}
