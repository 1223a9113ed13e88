cancel() { # cancel RUN all|INDEX...: waiting tasks end at once, running ones are asked to
  run=$1
  shift
  [ -e "runs/$run/key" ] && [ ! -e "runs/$run/final" ] || return 0
  read_spec "$run"
  todo=
  { read -r todo <"runs/$run/todo"; } 2>/dev/null
  if [ "$1" = all ]; then
    true >"runs/$run/cancelled"
    rm -f "runs/$run/waiting" "queue/$key" "held/$key"
    # A dispatcher that was killed may have left the first one in both places.
    first=${todo%%[- ]*}
    if [ -e "active/$run.$first.1" ] || [ -d "runs/$run/$first.1" ]; then without "$first"; fi
    span_count "$todo"
    if [ "$spanned" -gt 0 ]; then
      event "$run" "C $todo"
      put "runs/$run/todo" ''
      count_down "$run" "$spanned" cancelled "C.$spanned"
    fi
    cancel_attempts ''
    return
  fi
  for index; do
    before=$todo
    without "$index"
    if [ "$before" != "$todo" ]; then
      [ -d "runs/$run/$index.1" ] && continue
      event "$run" "C $index"
      put "runs/$run/todo" "$todo"
      [ -n "$todo" ] || rm -f "queue/$key" "held/$key"
      count_down "$run" 1 cancelled "C.$index"
      continue
    fi
    cancel_attempts ".$index"
  done
}

cancel_attempts() { # of $run: all with '', or those of one task with .INDEX
  for entry in queue/"$key$1".* held/"$key$1".*; do
    [ -e "$entry" ] && cancel_attempt "${entry#*/"$key".}" "$entry"
  done
  for entry in retry/"$run$1".*; do
    [ -e "$entry" ] && cancel_attempt "${entry#retry/"$run".}" "$entry"
  done
  for entry in active/"$run$1".*; do [ ! -e "$entry" ] || stop_attempt "${entry#active/"$run".}"; done
}

without() { # todo without index $1
  without_rest=$todo
  todo=
  for span in $without_rest; do
    low=${span%-*} high=${span#*-}
    if [ "$1" -lt "$low" ] || [ "$1" -gt "$high" ]; then
      todo="$todo $span"
    else
      [ "$low" -eq "$1" ] || todo="$todo $low-$(($1 - 1))"
      [ "$high" -eq "$1" ] || todo="$todo $(($1 + 1))-$high"
    fi
  done
  todo=${todo# }
}

span_count() {
  spanned=0
  for span in $1; do spanned=$((spanned + ${span#*-} - ${span%-*} + 1)); done
}

cancel_attempt() { # INDEX.ATTEMPT that waits in file $2
  rm -f "$2"
  now
  event "$run" "X ${1%.*} ${1#*.} $t"
  count_down "$run" 1 cancelled "X.$1"
}

stop_attempt() { # INDEX.ATTEMPT that runs
  [ ! -e "runs/$run/$1/end" ] || return 0
  put "runs/$run/$1.why" cancelled
  detach _kill "$grace" "$run" "${1%.*}" "${1#*.}"
}

signal_jobs() { # signal_jobs SIGNAL RUN: to what runs of it
  for entry in active/"$2".*; do
    signal_job=
    { read -r signal_job <"runs/$2/${entry#active/"$2".}/job"; } 2>/dev/null || continue
    alive "$signal_job" && group "$1" "$signal_job"
  done
}

suspend() {
  [ -e "runs/$1/key" ] && [ ! -e "runs/$1/final" ] && [ ! -e "runs/$1/paused" ] || return 0
  read_spec "$1"
  true >"runs/$1/paused" || fail "cannot write to $Q (disk full?)"
  for entry in queue/"$key" queue/"$key".*; do [ ! -e "$entry" ] || mv -f "$entry" held/; done
  signal_jobs STOP "$1"
  event "$1" P
}

resume() {
  [ -e "runs/$1/paused" ] || return 0
  read_spec "$1"
  rm -f "runs/$1/paused"
  for entry in held/"$key" held/"$key".*; do [ ! -e "$entry" ] || mv -f "$entry" queue/; done
  signal_jobs CONT "$1"
  event "$1" U
}

why() { # the queue as it stands, for one run
  usage
  printf 'slots %s %s\n' "$total" "$free"
  for entry in active/*; do
    [ -e "$entry" ] || continue
    read -r slots active_gpus owner <"$entry" && printf 'active %s %s %s\n' "${entry#active/}" "$slots" "$active_gpus"
  done
  for entry in queue/*; do
    [ -e "$entry" ] || continue
    read -r need need_gpus width product <"$entry" || continue
    key=${entry#queue/}
    printf 'queue %s %s %s %s\n' "${key#*.*.}" "$need" "$need_gpus" "$width"
    case ${key#*.*.} in "$1" | "$1".*) break ;; esac
  done
  [ ! -e "runs/$1/paused" ] || printf 'paused\n'
  if [ -e "runs/$1/waiting" ]; then
    read_spec "$1"
    for dependency in $after; do
      [ -e "runs/${dependency%:*}/final" ] || printf 'after %s\n' "$dependency"
    done
  fi
  for entry in retry/"$1".*; do
    [ -e "$entry" ] && read -r due owner <"$entry" && printf 'retry %s %s\n' "${entry#retry/"$1".}" "$due"
  done
  gpu_list
  [ -z "$gpu_lines" ] || printf 'gpus %s %s\n' "$(printf '%s\n' "$gpu_lines" | wc -l)" "$taken"
  printf 'now %s\n' "$(date +%s)"
}

latest() { # latest: the INDEX.ATTEMPT of task $2 of run $1 that runs now
  latest=
  for entry in active/"$1.$2".*; do [ ! -e "$entry" ] || latest=${entry#active/"$1".}; done
}

running() { # task $2 of run $1 must run
  latest "$1" "$2"
  { [ -n "$latest" ] && read -r exec_job <"runs/$1/$latest/job" && alive "$exec_job"; } 2>/dev/null ||
    fail "task $2 of $1 is not running"
}

execute() { # execute RUN INDEX FILE: become the command in FILE, where and as the task runs
  running "$1" "$2"
  read_spec "$1"
  exec_file=$Q/$3
  begin "$1" "$2" "${latest#*.}" || exit 3
  # shellcheck disable=SC1090
  . "$Q/runs/$1/job"
  shell=no
  # shellcheck disable=SC1090
  . "$exec_file"
  rm -f "$exec_file"
  words "$@"
}

feed() { # feed RUN INDEX <bytes: to the live stdin of the first attempt
  until [ -p "runs/$1/$2.1/feed" ]; do # it is made only once the job's copy of the tree is there
    [ -d "runs/$1" ] && [ ! -e "runs/$1/$2.1/end" ] || exit 0
    nap 0.05
  done
  exec 5<>"runs/$1/$2.1/feed" 6>"runs/$1/$2.1/feed" 5<&- # with a reader of our own at first: a job that has ended opens its end no more
  cat >&6 6>&-
  exec 6>&-
  if [ -e "runs/$1/$2.1/exit" ]; then exit 0; fi
  true <>"runs/$1/$2.1/fed" # the holder may have gone: do not wait for it
  printf '\n' 1<>"runs/$1/$2.1/fed"
}

