verb=$1
shift
case $verb in
_task | _job | _adopt | _retry) patient=yes ;;
_*) ;;
*)
  printf 'qwex 1\n'
  prepare
  ;;
esac
case $verb in
submit | receive | observe | watch | logs | why | execute | feed | list | fetch | forget | check | purge | sweep) $verb "$@" ;;
have) trees ;;
capacity)
  total_slots
  gpu_list
  printf '%s\n' "$total"
  [ -z "$gpu_lines" ] || printf '%s\n' "$gpu_lines"
  ;;
stash) # the words of a command to execute beside task $2 of run $1
  running "$1" "$2"
  cat >"tmp/stash.$$" || fail "cannot write to $Q (disk full?)"
  printf 'tmp/stash.%s\n' $$
  ;;
cancel)
  lock
  while read -r run indexes; do
    # shellcheck disable=SC2086
    cancel "$run" $indexes
  done
  release
  dispatch
  unlock
  ;;
suspend | resume)
  lock
  while read -r run; do "$verb" "$run"; done
  dispatch
  unlock
  ;;
_task) task "$@" ;;
_job) job "$@" ;;
_adopt) adopt "$@" ;;
_retry) wait_retry "retry/$1" ;;
_kill)
  end_all "$@"
  ;;
_spare) spare "$1" ;;
_words)
  cd "$QWEX_AT" || exit 1
  if [ -n "$QWEX_LC" ]; then LC_ALL=$QWEX_LC; else unset LC_ALL; fi
  umask "$QWEX_MASK"
  shell=$QWEX_SHELL
  unset QWEX_LC QWEX_MASK QWEX_SHELL QWEX_SCRIPT QWEX_AT
  # shellcheck disable=SC1090
  . "$Q/runs/$QWEX_RUN_ID/job"
  words "$@"
  ;;
_known | _same | _emptied | _sizes)
  in_work "$1"
  shift
  "${verb#_}" "$@"
  ;;
*) fail "unknown request $verb: the client is newer than $me" ;;
esac

