own_copy() { # a private copy of tree $1 as $2/work, with $2/mark
  if [ -z "$1" ]; then
    mkdir -p "$2/work"
    return
  fi
  for own_spare in spare/"$1".*; do
    [ -d "$own_spare/work" ] && mv "$own_spare" "$2" 2>/dev/null && return
  done
  [ -d "trees/$1/t" ] || {
    printf 'qwex: the workspace %s is no longer here\n' "$1" >&2
    return 1
  }
  mkdir -p "$2" && copy_tree "trees/$1/t" "$2/work" && settle_clock "$2"
}

copy_tree() { # writable copies, no two sharing a file, holes kept where cp can
  cp -RPp --reflink=auto "$1" "$2" 2>/dev/null && return
  [ ! -e "$2" ] || erase "$2"
  cp -RPp "$1" "$2"
}

settle_clock() { # wait until the file system's clock has gone on since $1/mark was made: what is written from now on is newer
  touch "$1/mark"
  while :; do
    touch "$1/tick"
    [ -z "$(find "$1/tick" -newer "$1/mark")" ] || break
  done
  rm -f "$1/tick"
}

group() { # group SIGNAL JOB-IDENTITY: to the job's processes; false when there are none
  kill "-$1" "-${2%%:*}" 2>/dev/null
}

strays() { # pids of processes that left the job's group but carry its token (Linux shows environments)
  strays=
  [ -r /proc/self/environ ] || return 0
  for strays_file in $(grep -ls "QWEX_TOKEN=$1" /proc/[0-9]*/environ 2>/dev/null); do
    strays_pid=${strays_file#/proc/}
    strays="$strays ${strays_pid%/environ}"
  done
}

end_all() { # end_all GRACE RUN INDEX ATTEMPT: TERM to all of the attempt's processes, KILL to those left after GRACE seconds
  end_job=
  { read -r end_job <"runs/$2/$3.$4/job"; } 2>/dev/null
  strays "$2.$3.$4"
  [ -n "$strays" ] || { [ -n "$end_job" ] && group 0 "$end_job"; } || return 0
  # CONT: a stopped process answers nothing else
  [ -z "$end_job" ] || { group TERM "$end_job" && group CONT "$end_job"; }
  # shellcheck disable=SC2086
  [ -z "$strays" ] || kill -TERM $strays 2>/dev/null
  end_waited=0
  while :; do
    strays "$2.$3.$4"
    [ -n "$strays" ] || { [ -n "$end_job" ] && group 0 "$end_job"; } || return 0
    [ "$end_waited" -lt "$(($1 * 10))" ] || break
    nap 0.1
    end_waited=$((end_waited + 1))
    [ "$frac" = yes ] || end_waited=$((end_waited + 9))
  done
  [ -z "$end_job" ] || group KILL "$end_job"
  end_rounds=0
  while [ -n "$strays" ] && [ $end_rounds -lt 50 ]; do
    # shellcheck disable=SC2086
    kill -KILL $strays 2>/dev/null
    nap 0.02
    strays "$2.$3.$4"
    end_rounds=$((end_rounds + 1))
  done
}

clock() { # background of an attempt: note the sizes of its output every two seconds, for --since
  clock_sizes=
  trap 'kill "$clock_nap" 2>/dev/null; exit' TERM
  while :; do
    sleep 2 &
    clock_nap=$!
    wait $clock_nap
    # shellcheck disable=SC2046
    set -- $(ls -lnd "$attempt_dir/out" "$attempt_dir/err")
    [ "$clock_sizes" = "${14} $5" ] && continue
    clock_sizes="${14} $5"
    now
    printf '%s\n' "$t $clock_sizes" >>"$attempt_dir/times"
  done
}

limit_watch() { # background of an attempt: its time limit
  trap 'kill "$limit_nap" 2>/dev/null; exit' TERM
  sleep "$1" 2>/dev/null &
  limit_nap=$!
  wait $limit_nap || sleep "$((${1%%.*} + 1))"
  put "$attempt_dir.why" time-limit
  trap '' TERM
  end_all "$grace" "$2" "$3" "$4"
}

oom_count() {
  oom=$(grep -s '^oom_kill ' /proc/vmstat)
}

task() { # task RUN INDEX ATTEMPT: the whole of an attempt. Its directory is its claim: only one process makes it
  attempt_dir=runs/$1/$2.$3
  mkdir "$attempt_dir" 2>/dev/null || exit 0
  self
  { read -r slots picked owner <"active/$1.$2.$3"; } 2>/dev/null || exit 0
  put "active/$1.$2.$3" "$slots $picked $identity"
  read_spec "$1"
  true >"$attempt_dir/out"
  true >"$attempt_dir/err"
  now
  put "$attempt_dir/started" "$t $picked"
  event "$1" "S $2 $3 $t"
  if [ -e "$attempt_dir.why" ]; then
    conclude "$1" "$2" "$3" 143
  elif ! own_copy "$tree" "$attempt_dir/space" 2>"$attempt_dir/err"; then
    put "$attempt_dir.why" workspace
    conclude "$1" "$2" "$3" 1
  else
    [ "$stdin" != live ] || mkfifo "$attempt_dir/feed" "$attempt_dir/fed"
    clock &
    helpers=$!
    case $limit in
    0) ;;
    *)
      limit_watch "$limit" "$1" "$2" "$3" &
      helpers="$helpers $!"
      ;;
    esac
    if [ "$stdin" = live ]; then # keeps the fifo open for writing until the feeder says it is done
      hold "$attempt_dir" &
      helpers="$helpers $!"
    fi
    oom_count
    oom_before=$oom
    apart _job "$1" "$2" "$3"
    status=$?
    # shellcheck disable=SC2086
    kill -TERM $helpers 2>/dev/null
    conclude "$1" "$2" "$3" $status
  fi
  after_attempt "$1" "$2" "$3"
}

hold() { # without a trap: bash would not run it while it waits in open
  exec 5<>"$1/feed"
  read -r held <"$1/fed"
  until [ -e "$1/reads" ]; do nap 0.05; done # what was fed before the job opened its end is lost when nobody holds the fifo
}

conclude() { # conclude RUN INDEX ATTEMPT STATUS: nothing of it may run on; count its results; publish its end
  attempt_dir=runs/$1/$2.$3
  if [ ! -e "$attempt_dir/end" ]; then
    code=$4
    ended=
    { read -r code ended <"$attempt_dir/exit"; } 2>/dev/null
    [ -n "$ended" ] || {
      now
      ended=$t
    }
    started=$ended
    { read -r started picked <"$attempt_dir/started"; } 2>/dev/null
    why=exit
    end_all 1 "$1" "$2" "$3"
    { read -r why <"$attempt_dir.why"; } 2>/dev/null
    # A request to end that came too late changes nothing.
    case $why.$code in cancelled.0 | time-limit.0) [ ! -e "$attempt_dir/exit" ] || why=exit ;; esac
    if [ "$why.$code" = exit.137 ]; then
      oom_count
      [ "$oom" = "${oom_before-$oom}" ] || why=memory
    fi
    files=0 bytes=0
    harvest "$1" "$2"
    put "$attempt_dir/end" "$code $why $started $ended $files $bytes"
  fi
  lock
  settle "$1" "$2" "$3"
  release
  dispatch
  unlock
}

after_attempt() { # after_attempt RUN INDEX ATTEMPT: with the end published, make ready for the next
  [ ! -d "$attempt_dir/space" ] || erase "$attempt_dir/space"
  due_file=retry/$1.$2.$(($3 + 1))
  [ ! -e "$due_file" ] || wait_retry "$due_file"
  spare "$tree"
  tidy 30
}

wait_retry() {
  read -r due owner <"$1" || return 0
  while wait_left=$((due - $(date +%s))) && [ "$wait_left" -gt 0 ]; do sleep "$wait_left"; done
  lock
  [ ! -e "$1" ] || {
    requeue "$1"
    dispatch
  }
  unlock
}

links() { # a clone of tree $1 by hard links, if it is the newest: most likely the next difference is one to it
  [ ! -d "spare/$1-links" ] && [ "$(ls -t trees | head -n 1)" = "$1" ] && mkdir "tmp/links.$1" 2>/dev/null || return 0
  if cp -al "trees/$1/t" "tmp/links.$1/t" 2>/dev/null; then
    for links_old in spare/*-links; do [ ! -d "$links_old" ] || erase "$links_old"; done
    mv "tmp/links.$1" "spare/$1-links"
  else
    erase "tmp/links.$1"
  fi
}

spare() { # make sure that a copy of tree $1 is ready, if it is one of the newest three and below 1 GB
  [ -n "$1" ] && [ -d "trees/$1/t" ] || return 0
  links "$1"
  for spare_one in spare/"$1".*; do [ ! -d "$spare_one" ] || return 0; done
  read -r spare_bytes spare_files <"trees/$1/meta" || return 0
  [ "$spare_bytes" -le 1073741824 ] || return 0
  # shellcheck disable=SC2012,SC2045 # names are digests
  case " $(ls -t trees | head -n 3 | tr '\n' ' ') " in *" $1 "*) ;; *) return 0 ;; esac
  mkdir "tmp/spare.$1" 2>/dev/null || {
    [ -n "$(find "tmp/spare.$1" -prune -mmin +60 2>/dev/null)" ] && erase "tmp/spare.$1"
    return 0
  }
  if renice -n 19 -p $$ >/dev/null 2>&1; copy_tree "trees/$1/t" "tmp/spare.$1/work" && settle_clock "tmp/spare.$1"; then
    mv "tmp/spare.$1" "spare/$1.$$"
  else
    erase "tmp/spare.$1"
  fi
}

job() { # job RUN INDEX ATTEMPT: leader of the job's own session; records how it ended, whatever becomes of its parent
  attempt_dir=$Q/runs/$1/$2.$3
  trap : TERM INT HUP QUIT USR1 USR2 ALRM
  self
  printf '%s\n' "$identity" >"$attempt_dir/job"
  [ ! -e "$attempt_dir.why" ] || detach _kill 1 "$1" "$2" "$3"
  [ ! -e "runs/$1/paused" ] || kill -STOP $$
  (
    read_spec "$1"
    case $stdin in
    file) exec <"runs/$1/stdin" ;;
    live) if [ "$3" -eq 1 ]; then exec <"$attempt_dir/feed" && : >"$attempt_dir/reads"; else exec </dev/null; fi ;;
    *) exec </dev/null ;;
    esac
    exec >>"$attempt_dir/out" 2>>"$attempt_dir/err"
    begin "$1" "$2" "$3" || exit 1
    # shellcheck disable=SC1090
    . "$Q/runs/$1/job"
    run_words "$@"
  ) 2>/dev/null
  code=$?
  # ksh says 256 + n and yash 384 + n for signal n
  [ $code -le 384 ] || code=$((code - 256))
  [ $code -le 256 ] || code=$((code - 128))
  now
  until printf '%s\n' "$code $t" >"$attempt_dir/exit.new" && mv -f "$attempt_dir/exit.new" "$attempt_dir/exit"; do no_room; done
  exit $code
}

begin() { # the place and environment of an attempt
  if [ -n "$QWEX_LC" ]; then LC_ALL=$QWEX_LC; else unset LC_ALL; fi
  umask "$QWEX_MASK"
  unset QWEX_LC QWEX_MASK
  QWEX_RUN_ID=$1 QWEX_TASK_INDEX=$2 QWEX_TASK_COUNT=$count QWEX_ATTEMPT=$3 QWEX_TOKEN=$1.$2.$3
  export QWEX_RUN_ID QWEX_TASK_INDEX QWEX_TASK_COUNT QWEX_ATTEMPT QWEX_TOKEN
  begin_gpus=-
  { read -r begin_time begin_gpus <"$Q/runs/$1/$2.$3/started"; } 2>/dev/null
  [ "$begin_gpus" = - ] || {
    CUDA_VISIBLE_DEVICES=$begin_gpus
    export CUDA_VISIBLE_DEVICES
  }
  # shellcheck disable=SC1091
  [ ! -e "$Q/runs/$1/secret" ] || . "$Q/runs/$1/secret"
  cd "$Q/runs/$1/$2.$3/space/work/$cwd" 2>/dev/null || {
    printf 'qwex: no directory %s in the workspace\n' "$cwd" >&2
    return 1
  }
  PWD=$(pwd)
  unset OLDPWD
}

run_words() { # become the command
  if [ "$login" = yes ]; then
    case ${SHELL##*/} in
    bash | zsh | ksh | mksh | dash | sh | fish | yash) ;;
    *) SHELL=/bin/sh ;;
    esac
    QWEX_SCRIPT=$me QWEX_SHELL=$shell QWEX_AT=$PWD
    export QWEX_SCRIPT QWEX_SHELL QWEX_AT
    # shellcheck disable=SC2016
    exec "$SHELL" -l -c 'exec sh "$QWEX_SCRIPT" _words'
  fi
  words "$@"
}

words() {
  if [ "$shell" = yes ]; then exec /bin/sh -c "$1"; fi
  case $1 in
  -*) exec -- "$@" ;;
  *) exec "$@" ;;
  esac
}

adopt() { # adopt RUN INDEX ATTEMPT: its supervisor was killed; take its place
  attempt_dir=runs/$1/$2.$3
  lock
  { read -r slots picked owner <"active/$1.$2.$3"; } 2>/dev/null || exit 0
  if [ -n "${owner-}" ] && alive "$owner"; then exit 0; fi
  put "active/$1.$2.$3" "$slots $picked $identity"
  unlock
  read_spec "$1"
  adopt_job=
  { read -r adopt_job <"$attempt_dir/job"; } 2>/dev/null
  case $limit in
  0) helpers= ;;
  *)
    { read -r adopt_started picked <"$attempt_dir/started"; } 2>/dev/null
    adopt_left=$((${limit%%.*} + 1 + ${adopt_started%%.*} - $(date +%s)))
    [ "$adopt_left" -gt 0 ] || adopt_left=0
    limit_watch "$adopt_left" "$1" "$2" "$3" &
    helpers=$!
    ;;
  esac
  while [ -n "$adopt_job" ] && alive "$adopt_job"; do nap 0.2; done
  # shellcheck disable=SC2086
  [ -z "$helpers" ] || kill -TERM $helpers 2>/dev/null
  if [ ! -e "$attempt_dir/exit" ] && [ ! -e "$attempt_dir.why" ]; then
    adopt_boot=${adopt_job#*:*:}
    if [ -n "$adopt_job" ] && [ "${adopt_boot%%:*}" != "$boot" ]; then
      put "$attempt_dir.why" restarted
    else
      put "$attempt_dir.why" lost
    fi
  fi
  conclude "$1" "$2" "$3" 1
  after_attempt "$1" "$2" "$3"
}

