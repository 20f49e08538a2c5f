//! Directives of nginx that are not carried over: those that nobody will miss, and those of which it is said why.

use crate::convert::directive::Directive;
use crate::convert::draft::Draft;

const OPEN_NOW: &str = "what it kept out gets in here";
const REFUSED: &str = "Shoal refuses nothing itself: what it kept out gets in here";
const FILES: &str = "Shoal serves no files: name a server that does as an endpoint";
const NO_FIELDS: &str = "Shoal changes no fields of answers: let the endpoints send what is needed";
const REWRITE: &str = "Shoal neither rewrites nor redirects: let the endpoints do so";

/// Read where what they are about is written.
const READ: &str = "
access_log client_body_timeout client_header_timeout client_max_body_size grpc_connect_timeout grpc_next_upstream
grpc_next_upstream_tries grpc_pass grpc_read_timeout grpc_ssl_certificate grpc_ssl_certificate_key grpc_ssl_name
grpc_ssl_trusted_certificate grpc_ssl_verify http http2_max_concurrent_streams keepalive_requests keepalive_time
keepalive_timeout large_client_header_buffers limit_conn listen location proxy_cache proxy_cache_bypass proxy_cache_key
proxy_cache_methods proxy_cache_use_stale proxy_cache_valid proxy_connect_timeout proxy_ignore_headers proxy_next_upstream
proxy_next_upstream_tries proxy_no_cache proxy_pass proxy_read_timeout proxy_set_header proxy_ssl_certificate proxy_ssl_certificate_key
proxy_ssl_name proxy_ssl_trusted_certificate proxy_ssl_verify real_ip_header resolver send_timeout server server_name set
set_real_ip_from ssl ssl_certificate ssl_certificate_key ssl_client_certificate ssl_crl ssl_protocols ssl_verify_client
stream upstream";

/// About how nginx works inside, about defaults of Shoal, or about something that is reported itself.
const HARMLESS: &str = "
absolute_redirect accept_mutex aio allow_underscores auth_basic_user_file autoindex_exact_size autoindex_localtime charset
charset_types chunked_transfer_encoding client_body_buffer_size client_body_temp_path client_header_buffer_size
connection_pool_size daemon debug_connection default_type directio env error_log etag events fastcgi_buffer_size
fastcgi_buffers fastcgi_cache_path fastcgi_index fastcgi_param fastcgi_read_timeout fastcgi_split_path_info
gzip_buffers gzip_comp_level gzip_disable gzip_http_version gzip_min_length gzip_proxied gzip_types gzip_vary
brotli_comp_level brotli_min_length brotli_static brotli_types grpc_buffer_size http2 http2_body_preread_size
http2_chunk_size http2_idle_timeout http2_max_field_size http2_max_header_size http2_max_requests http2_recv_timeout
ignore_invalid_headers index keepalive_disable limit_conn_log_level limit_conn_status limit_conn_zone limit_req_log_level
limit_req_status limit_req_zone lingering_close lingering_time lingering_timeout load_module lock_file log_format
log_not_found log_subrequest master_process max_ranges merge_slashes msie_padding multi_accept open_file_cache
open_file_cache_errors open_file_cache_min_uses open_file_cache_valid open_log_file_cache output_buffers pcre_jit pid
port_in_redirect postpone_output proxy_buffer_size proxy_buffering proxy_buffers proxy_busy_buffers_size
proxy_cache_background_update proxy_cache_convert_head proxy_cache_lock proxy_cache_lock_age proxy_cache_lock_timeout
proxy_cache_max_range_offset proxy_cache_revalidate proxy_headers_hash_bucket_size proxy_headers_hash_max_size
proxy_http_version proxy_max_temp_file_size proxy_request_buffering proxy_socket_keepalive proxy_ssl_ciphers
proxy_ssl_protocols proxy_ssl_server_name proxy_ssl_session_reuse proxy_ssl_verify_depth proxy_temp_file_write_size
proxy_temp_path read_ahead real_ip_recursive recursive_error_pages request_pool_size reset_timedout_connection
resolver_timeout rewrite_log satisfy sendfile sendfile_max_chunk server_name_in_redirect server_names_hash_bucket_size
server_names_hash_max_size server_tokens slice ssl_buffer_size ssl_dhparam ssl_early_data ssl_engine
ssl_prefer_server_ciphers ssl_session_cache ssl_session_ticket_key ssl_session_tickets ssl_session_timeout
ssl_stapling_verify ssl_trusted_certificate ssl_verify_depth subrequest_output_buffer_size tcp_nodelay tcp_nopush
thread_pool timer_resolution types types_hash_bucket_size types_hash_max_size underscores_in_headers use user
variables_hash_bucket_size variables_hash_max_size working_directory worker_aio_requests worker_connections
worker_cpu_affinity worker_priority worker_processes worker_rlimit_core worker_rlimit_nofile worker_shutdown_timeout";

/// What has no counterpart, and what to do.
const WITHOUT: [(&str, &str); 65] = [
    ("add_header", NO_FIELDS),
    ("add_trailer", NO_FIELDS),
    ("alias", FILES),
    ("allow", "Shoal tells no addresses apart"),
    ("auth_basic", "Shoal asks for no passwords: what it kept out gets in here"),
    ("auth_jwt", OPEN_NOW),
    ("auth_request", "Shoal asks nobody else who may: what it kept out gets in here"),
    ("auth_request_set", OPEN_NOW),
    ("autoindex", FILES),
    ("brotli", "Shoal compresses nothing: let the endpoints do so; encodings are cached apart by `Vary`"),
    ("deny", "Shoal tells no addresses apart: what it kept out gets in here"),
    ("error_page", "errors go on as the endpoints send them"),
    ("expires", NO_FIELDS),
    ("fastcgi_pass", "Shoal speaks HTTP to endpoints, not FastCGI: name an HTTP server in front of it"),
    ("grpc_set_header", "Shoal sets no fields of requests beside those that say who called"),
    ("gzip", "Shoal compresses nothing: let the endpoints do so; encodings are cached apart by `Vary`"),
    ("gzip_static", FILES),
    ("if", "Shoal goes by host, path and listener alone: let the endpoints decide"),
    ("if_modified_since", NO_FIELDS),
    ("include", "no file matches it here: what it includes elsewhere is missing"),
    ("internal", "Shoal has no routes for itself only: what it kept out gets in here"),
    ("limit_except", "Shoal does not go by methods: what it kept out gets in here"),
    ("limit_rate", "Shoal slows nobody down"),
    ("limit_rate_after", "Shoal slows nobody down"),
    (
        "limit_req",
        "Shoal counts connections, not requests: `limits.max_connection_rate_per_address` of the listener",
    ),
    ("memcached_pass", "Shoal speaks HTTP to endpoints"),
    ("mirror", "every request goes to one endpoint"),
    ("more_clear_headers", NO_FIELDS),
    ("more_set_headers", NO_FIELDS),
    ("proxy_bind", "connections to endpoints leave from the node's own address"),
    ("proxy_cache_min_uses", "what may be stored is stored at the first request"),
    (
        "proxy_cache_path",
        "a node's cache is set when it starts: `shoal run --cache-memory SIZE --cache-disk SIZE`",
    ),
    ("proxy_cache_purge", "use `shoal cache purge`, or `cache.purge_method` of the route"),
    ("proxy_cookie_domain", NO_FIELDS),
    ("proxy_cookie_flags", NO_FIELDS),
    ("proxy_cookie_path", NO_FIELDS),
    ("proxy_hide_header", NO_FIELDS),
    ("proxy_intercept_errors", "errors go on as the endpoints send them"),
    ("proxy_limit_rate", "Shoal slows nobody down"),
    ("proxy_method", "the method goes on as it came"),
    ("proxy_next_upstream_timeout", "`timeouts.total` of the route limits the whole exchange"),
    ("proxy_pass_header", NO_FIELDS),
    ("proxy_pass_request_body", "bodies always go on"),
    ("proxy_pass_request_headers", "fields always go on"),
    ("proxy_redirect", "`Location` goes on as the endpoint writes it"),
    (
        "proxy_send_timeout",
        "there is none for sending alone; `timeouts.total` of the route limits the whole exchange",
    ),
    ("proxy_set_body", "bodies go on as they came"),
    (
        "proxy_ssl_crl",
        "there are no revocation lists for endpoints; `tls.pins` names the keys that are believed",
    ),
    ("proxy_store", FILES),
    ("quic_retry", "Shoal speaks no HTTP/3"),
    ("return", "Shoal answers nothing itself, redirects included: let an endpoint do so"),
    ("rewrite", REWRITE),
    ("root", FILES),
    ("scgi_pass", "Shoal speaks HTTP to endpoints"),
    (
        "ssl_ciphers",
        "all suites of Shoal have forward secrecy; `ciphers` of the listener takes their IANA names",
    ),
    ("ssl_conf_command", "there is nothing of OpenSSL in Shoal"),
    ("ssl_ecdh_curve", "X25519MLKEM768, X25519, P-256 and P-384 are offered"),
    ("ssl_reject_handshake", "names without a certificate get the first one of the listener"),
    ("ssl_stapling", "`ocsp_file` of the certificate is stapled; Shoal fetches none"),
    ("ssl_stapling_file", "use `ocsp_file` of the certificate"),
    ("stub_status", "see /metrics at `--ops-addr`"),
    ("sub_filter", "bodies go on as they came"),
    ("try_files", FILES),
    ("uwsgi_pass", "Shoal speaks HTTP to endpoints, not uwsgi: name an HTTP server in front of it"),
    ("valid_referers", OPEN_NOW),
];

/// A block with one of these serves requests that are not refused.
const LEADS_ON: [&str; 4] = ["grpc_pass", "location", "proxy_pass", "try_files"];

/// Says of every setting of a block that has no counterpart. What begins a block of its own is looked at by itself.
pub(super) fn sift(block: &[Directive], draft: &mut Draft) {
    let leads_on = block.iter().any(|one| LEADS_ON.contains(&one.name.as_str()));
    for directive in block {
        let name = directive.name.as_str();
        let is_in = |names: &str| names.split_ascii_whitespace().any(|known| known == name);
        if is_in(READ) || is_in(HARMLESS) || is_default(directive) {
            continue;
        }
        if leads_on && (refuses(directive) || name == "if" && directive.body().iter().any(refuses)) {
            draft.left_out(directive, REFUSED);
            continue;
        }
        let known = WITHOUT.binary_search_by_key(&name, |(known, _)| known);
        draft.left_out(directive, known.map_or("Shoal has nothing like it", |found| WITHOUT[found].1));
    }
}

/// Why requests for a location lead nowhere.
pub(super) fn why_no_endpoint(block: &[Directive]) -> &'static str {
    let has = |name: &str| block.iter().any(|directive| directive.name == name);
    let speaks = ["fastcgi_pass", "uwsgi_pass", "scgi_pass", "memcached_pass"].into_iter().any(has);
    match () {
        () if speaks => "Shoal speaks HTTP to endpoints: name an HTTP server in front of this one",
        () if has("deny") || has("internal") || block.iter().any(refuses) => REFUSED,
        () if ["return", "rewrite", "stub_status"].into_iter().any(has) => {
            "Shoal neither answers nor redirects itself: let an endpoint do so"
        }
        () => FILES,
    }
}

/// It keeps out whoever asks.
fn refuses(directive: &Directive) -> bool {
    let status = directive.first();
    directive.name == "return" && status.len() == 3 && status.starts_with('4')
}

/// It is written, and says what Shoal does anyway.
fn is_default(directive: &Directive) -> bool {
    let argument = directive.first();
    match directive.name.as_str() {
        "gzip"
        | "brotli"
        | "gzip_static"
        | "autoindex"
        | "auth_basic"
        | "proxy_bind"
        | "proxy_intercept_errors"
        | "ssl_stapling"
        | "auth_request"
        | "expires"
        | "mirror"
        | "ssl_reject_handshake" => argument == "off",
        "proxy_redirect" => matches!(argument, "off" | "default"),
        "allow" => argument == "all",
        "proxy_pass_request_headers" | "proxy_pass_request_body" => argument == "on",
        "proxy_cache_min_uses" => argument == "1",
        // What keeps WebSockets apart from other connections is of no concern here.
        "map" => directive.first() == "$http_upgrade",
        _ => false,
    }
}

/// A request that wants to pass by the cache says so in `Cache-Control`, which is honoured.
pub(super) fn is_in_request_directives(variable: &str) -> bool {
    matches!(variable, "$http_cache_control" | "$http_pragma")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_directive_is_in_one_list() {
        assert!(WITHOUT.is_sorted_by_key(|(name, _)| name), "it is searched");
        let mut names: Vec<&str> =
            READ.split_ascii_whitespace().chain(HARMLESS.split_ascii_whitespace()).collect();
        names.extend(WITHOUT.map(|(name, _)| name));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
