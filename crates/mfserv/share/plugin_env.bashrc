# Written by `mfserv setup --commands`: a change is lost when that runs again.
# What an interactive shell of plugin_env reads.

if test -f /etc/bash.bashrc; then . /etc/bash.bashrc; fi

PS1="[\u@\h \W] (plugin $MFSERV_CURRENT_PLUGIN_NAME)\\$ "

# Without an argument, to the directory of the plugin.
cd() {
    if test $# -eq 0; then
        builtin cd "$MFSERV_CURRENT_PLUGIN_DIR"
    else
        builtin cd "$@"
    fi
}
