//! The demo behind real web servers, with the very files of `deploy/`.
//!
//! Each test starts its own server on an address of its own and ends it, whatever happens. They need the servers, so
//! they are ignored unless asked for: `tests/run` installs what is missing and runs them.

mod cases;
mod client;
mod doctor;
mod process;
mod site;
mod units;

/// A test for each of these cases, behind one server.
macro_rules! tests {
    ($front:ident, $reason:literal: $($case:ident)*) => {
        $(
            #[test]
            #[ignore = $reason]
            fn $case() {
                crate::cases::$case(crate::site::Front::$front);
            }
        )*
    };
}

/// All the cases, behind one server.
macro_rules! front {
    ($module:ident, $front:ident, $reason:literal $(, $more:ident)*) => {
        mod $module {
            tests! { $front, $reason:
                hello
                env_at_the_root
                env_at_a_mount
                login_at_a_mount_sets_a_cookie_for_the_mount
                login_at_the_root_sets_a_cookie_for_the_root
                redirect_does_not_eat_the_cookie
                encoded_paths_arrive_decoded_once
                paths_that_are_not_utf_8_are_no_failure
                dot_segments_do_not_lead_out_of_the_mount
                body_up_to_the_limit
                body_above_the_limit_is_a_413_that_arrives
                a_413_of_the_program_arrives
                a_body_that_the_handler_ignores_costs_no_reply
                upload
                head
                not_modified
                chunked_upload
                parallel_requests_of_one_session_are_all_counted
                a_client_that_leaves_keeps_nobody
                authorization_reaches_the_program
                a_proxy_header_does_not_become_a_proxy
                a_query_is_no_command_line
                https_is_known
                a_program_that_dies_is_one_clients_502
                a_request_with_a_dead_program_is_not_sent_again
                big_headers
                errors_of_the_program_arrive_as_they_are
                the_doctor_finds_nothing_to_mend
                only_the_doctor_is_told_anything
                $($more)*
            }
        }
    };
}

front!(
    nginx_scgi,
    NginxScgi,
    "needs nginx (Debian: nginx-light): run tests/run",
    a_restart_of_the_pool_is_not_punished,
    one_session_does_not_take_the_pool
);
front!(apache_cgi, ApacheCgi, "needs Apache (Debian: apache2): run tests/run", nobody_waits_for_a_sweep);
front!(
    apache_scgi,
    ApacheScgi,
    "needs Apache (Debian: apache2): run tests/run",
    a_restart_of_the_pool_is_not_punished,
    one_session_does_not_take_the_pool
);
front!(lighttpd_cgi, LighttpdCgi, "needs lighttpd (Debian: lighttpd): run tests/run", nobody_waits_for_a_sweep);
front!(
    lighttpd_scgi,
    LighttpdScgi,
    "needs lighttpd (Debian: lighttpd): run tests/run",
    a_restart_of_the_pool_is_not_punished,
    one_session_does_not_take_the_pool
);
