# SPDX-License-Identifier: GPL-2.0
# The interactive shell of `rig shell`.
PS1='guest:\w# '
alias ll='ls -l'
