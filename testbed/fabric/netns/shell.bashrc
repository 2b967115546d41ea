# What an interactive shell on a node of a fabric starts with.
[ -r ~/.bashrc ] && . ~/.bashrc
PS1="[$TESTBED_NODE@$TESTBED_FABRIC \\w]\\$ "
