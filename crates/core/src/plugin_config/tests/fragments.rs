use super::warned;

#[test]
fn all_files_for_nginx_are_named_in_one_line_where_another_front_is_used() {
    let text = "_extra_nginx_http_conf_filename=nginx.conf\n\
                _extra_nginx_server_conf_filename=x.conf\n[app_main]\n\
                _extra_nginx_conf_filename=nginx.conf\n";
    let said = ["nginx.conf, x.conf have no effect here", "[front] kind=nginx"];
    warned(text, 8, &said);
    let alone = "_extra_nginx_http_conf_filename=nginx.conf\n";
    warned(alone, 8, &["nginx.conf has no effect here", "need nginx"]);
}
