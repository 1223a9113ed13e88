#!/bin/sh
# shellcheck disable=SC1090,SC1091,SC2034,SC2209,SC3038,SC2030,SC2031
# The far side of Qwex's SSH backend: a queue of one account, kept in one directory by this script and POSIX utilities.
#
#   bin/DIGEST.sh     this text, under its own digest: clients of several versions share one queue
#   format            version of the layout below
#   lock/             held while the queue changes; `owner` says by which process
#   trees/DIGEST/     a workspace as it was sent: t/ (never written again) and meta (bytes, files)
#   spare/DIGEST.N/   a copy ready to be a job's own: work/ and mark (younger than all in work/)
#   spare/DIGEST-links/  a clone by hard links of the newest tree, ready to become the next one
#   queue/ held/      what may start, in order: PRIORITY.SEQUENCE.RUN[.INDEX.ATTEMPT] holds "slots gpus limit product"
#   active/           what runs: RUN.INDEX.ATTEMPT holds "slots gpus owner"
#   retry/            what waits for its next attempt: RUN.INDEX.ATTEMPT holds "due owner"
#   open/RUN          a run that has not ended; holds the digest of its tree
#   runs/RUN/         spec job [secret stdin todo left dependants final] events, results/INDEX/,
#                     INDEX.ATTEMPT/ (out err times job exit end), INDEX.ATTEMPT.why
#
# A process is named "pid:birth:boot:host", so that another one with the same number is not taken for it.
# Everything that decides is a file renamed into place or a directory made; whoever is killed half-way is cleared up after
# by the next contact (`sweep`). Nobody polls on behalf of the queue: who submits or ends a job starts what may run next.
# The client starts this script without quoting (any login shell will do); the first line it prints is a greeting.

case ${QWEX_LC-none} in
none)
  QWEX_LC=${LC_ALL-} QWEX_MASK=$(umask)
  export QWEX_LC QWEX_MASK
  ;;
esac
LC_ALL=C
export LC_ALL
unset TIME_STYLE CDPATH GZIP TAR_OPTIONS BASH_ENV ENV 2>/dev/null
umask 077
FORMAT=1
case $0 in
*/bin/*) home=${0%/bin/*} ;;
*) home=. ;;
esac
cd "$home" || exit 3
Q=$(pwd -P)
me=$Q/bin/${0##*/}
locked=
patient=

fail() { # say what is wrong and stop: the client shows this line
  printf 'qwex: %s\n' "$*" >&2
  exit 3
}

