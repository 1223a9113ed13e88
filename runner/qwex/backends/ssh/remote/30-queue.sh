total_slots() { # total
  total=
  { read -r total <slots; } 2>/dev/null
  [ -n "$total" ] && return
  total=$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null)
  total=${total:-1}
}

gpu_list() { # gpu_lines: "index product" lines of this machine
  command -v nvidia-smi >/dev/null || {
    gpu_lines=
    return
  }
  gpu_lines=$(nvidia-smi --query-gpu=index,name --format=csv,noheader 2>/dev/null | sed 's/ *, */ /')
}

pick_gpus() { # pick_gpus COUNT PRODUCT: picked=0,3 of the free ones (taken: ",0,1,"), or empty
  gpu_list
  picked='' picked_count=0
  while read -r gpu_index gpu_name; do
    [ -n "$gpu_index" ] || continue
    case $taken in *",$gpu_index,"*) continue ;; esac
    case $(printf '%s' "$gpu_name" | tr '[:upper:] ' '[:lower:]-') in *"$2"*) ;; *) continue ;; esac
    [ "$picked_count" -lt "$1" ] || break
    picked=${picked:+$picked,}$gpu_index
    picked_count=$((picked_count + 1))
  done <<GPUS
$gpu_lines
GPUS
  [ "$picked_count" -ge "$1" ] || picked=
}

usage() { # free (slots), taken (GPUs) from what is active
  used=0
  taken=,
  for usage_file in active/*; do
    [ -e "$usage_file" ] || continue
    slots=0 active_gpus=-
    { read -r slots active_gpus active_owner <"$usage_file"; } 2>/dev/null
    active_run=${usage_file#active/}
    # A suspended task gives its slots to others, and keeps its GPUs.
    [ -e "runs/${active_run%%.*}/paused" ] || used=$((used + ${slots:-0}))
    [ "$active_gpus" = - ] || taken=$taken$active_gpus,
  done
  total_slots
  free=$((total - used))
}

dispatch() { # start what may run: by priority, then first come first served
  usage
  for entry in queue/*; do
    [ "$free" -gt 0 ] || return 0
    [ -e "$entry" ] || continue
    read -r need need_gpus width product <"$entry" || continue
    key=${entry#queue/}
    key=${key#*.}
    key=${key#*.}
    run=${key%%.*}
    # A task that finds no GPU lets others pass that need none, but keeps its slots; any other that does not fit ends the search.
    while :; do
      [ "$need" -le "$free" ] || return 0
      if [ "$width" -gt 0 ]; then
        set -- active/"$run".*
        [ -e "$1" ] || shift
        [ $# -lt "$width" ] || break
      fi
      picked=-
      if [ "$need_gpus" -gt 0 ]; then
        pick_gpus "$need_gpus" "$product"
        if [ -z "$picked" ]; then
          free=$((free - need))
          break
        fi
      fi
      if [ "$key" = "$run" ]; then
        pop "$run" || {
          rm -f "$entry"
          break
        }
        attempt=1
      else
        index=${key#*.}
        attempt=${index#*.}
        index=${index%.*}
      fi
      name=$run.$index.$attempt
      if [ ! -d "runs/$run/$index.$attempt" ]; then
        note "active/$name" "$need $picked $identity"
        free=$((free - need))
        [ "$picked" = - ] || taken=$taken$picked,
      else
        name=
      fi
      if [ "$key" = "$run" ]; then
        put "runs/$run/todo" "$todo"
        [ -n "$todo" ] || rm -f "$entry"
      else
        rm -f "$entry"
      fi
      [ -z "$name" ] || detach _task "$run" "$index" "$attempt"
      [ "$key" = "$run" ] && [ -n "$todo" ] || break
    done
  done
}

pop() { # index: the next of run $1 that nobody took; todo: what is left. False at the end
  todo=
  { read -r todo <"runs/$1/todo"; } 2>/dev/null
  while [ -n "$todo" ]; do
    span=${todo%% *}
    rest=${todo#"$span"}
    rest=${rest# }
    index=${span%-*}
    last=${span#*-}
    if [ "$index" -lt "$last" ]; then
      todo="$((index + 1))-$last${rest:+ $rest}"
    else
      todo=$rest
    fi
    [ -e "active/$1.$index.1" ] || [ -d "runs/$1/$index.1" ] || return 0
  done
  return 1
}

enqueue() { # run $1, whose spec has been read and whose dependencies have ended well
  note "queue/$key" "$slots $gpus $width $product"
}

read_spec() {
  slots=1 gpus=0 product='' limit=0 grace=10 retries=0 width=0 count=1 tree='' cwd=. shell=no login=no stdin=none after='' key=''
  # shellcheck disable=SC1090
  . "./runs/$1/spec"
  { read -r key <"runs/$1/key"; } 2>/dev/null
}

judge() { # verdict on the dependencies of the run just read: go, wait or never (and because: on which)
  verdict=go
  for dependency in $after; do
    parent=${dependency%:*}
    if [ -e "runs/$parent/final" ]; then
      read -r parent_state parent_code <"runs/$parent/final"
      case ${dependency#*:}.$parent_state in
      any.* | ok.succeeded | fail.failed | fail.lost | fail.cancelled) ;;
      *)
        verdict=never because="$parent $parent_state"
        return
        ;;
      esac
    elif [ -d "runs/$parent" ]; then
      verdict='wait'
    else
      verdict=never because="$parent forgotten"
      return
    fi
  done
}

consider() { # a run that has just been taken up, or whose parents changed: queue it, let it wait, or end it
  read_spec "$1"
  judge
  case $verdict in
  go)
    if [ -e "held/$key" ] || [ -e "runs/$1/paused" ]; then
      note "held/$key" "$slots $gpus $width $product"
    else
      enqueue "$1"
    fi
    rm -f "runs/$1/waiting"
    event "$1" G
    ;;
  wait)
    true >"runs/$1/waiting"
    for dependency in $after; do
      parent=${dependency%:*}
      [ -e "runs/$parent/final" ] || printf '%s\n' "$1" >>"runs/$parent/dependants"
    done
    ;;
  never)
    rm -f "runs/$1/waiting"
    finish_run "$1" cancelled "D $because"
    ;;
  esac
}

finish_run() { # finish_run RUN STATE [EVENT]: it has ended; whoever waits for it is looked at again
  [ -z "${3-}" ] || event "$1" "$3"
  now
  put "runs/$1/final" "$2 $t"
  event "$1" "F $2 $t"
  rm -f "runs/$1/secret" "open/$1"
  [ ! -e "runs/$1/dependants" ] || changed="$changed $1"
}

changed=
release() { # look at the dependants of every run that ended; their own may follow
  while [ -n "$changed" ]; do
    # shellcheck disable=SC2086
    set -- $changed
    ended=$1
    shift
    changed="$*"
    [ -e "runs/$ended/dependants" ] || continue
    while read -r dependant; do
      [ -e "runs/$dependant/waiting" ] && consider "$dependant"
    done <"runs/$ended/dependants"
    rm -f "runs/$ended/dependants"
  done
}

count_down() { # count_down RUN NUMBER STATE MARK: so many tasks of it have ended for good, not twice under the same mark
  left=$count worst=succeeded last=
  { read -r left worst last <"runs/$1/left"; } 2>/dev/null
  if [ "$last" != "$4" ]; then
    left=$((left - $2))
    case $3.$worst in lost.* | failed.succeeded | failed.cancelled | cancelled.succeeded) worst=$3 ;; esac
    [ "$count" -eq 1 ] || put "runs/$1/left" "$left $worst $4"
  fi
  [ "$left" -gt 0 ] || [ -e "runs/$1/final" ] || finish_run "$1" "$worst"
}

settle() { # settle RUN INDEX ATTEMPT: its `end` is written; draw the consequences, once
  read_spec "$1"
  read -r end_code end_why end_started end_ended end_files end_bytes <"runs/$1/$2.$3/end"
  case $end_why.$end_code in
  cancelled.*) state=cancelled ;;
  lost.* | restarted.*) state=lost ;;
  exit.0) state=succeeded ;;
  *) state=failed ;;
  esac
  case $state in
  failed | lost)
    if [ "$3" -le "$retries" ] && [ ! -e "runs/$1/cancelled" ]; then
      # back-off: 1, 2, 4 ... 60 seconds
      delay=1 tried=1
      while [ $tried -lt "$3" ] && [ $delay -lt 60 ]; do delay=$((delay * 2)) tried=$((tried + 1)); done
      [ $delay -le 60 ] || delay=60
      due=$(($(date +%s) + delay))
      put "retry/$1.$2.$(($3 + 1))" "$due $identity"
      event "$1" "R $2 $(($3 + 1)) $due" # first: who reads between the two must not take this end for the last
      settled "$@"
      rm -f "active/$1.$2.$3"
      return
    fi
    ;;
  esac
  settled "$@"
  count_down "$1" 1 $state "$2.$3"
  rm -f "active/$1.$2.$3"
}

settled() { # the end that settle has read, on record
  event "$1" "E $2 $3 $end_code $end_why $end_started $end_ended $end_files $end_bytes"
}

requeue() { # the retry entry $1 is due
  retry_name=${1#retry/}
  run=${retry_name%%.*}
  read_spec "$run"
  retry_to=queue
  [ ! -e "runs/$run/paused" ] || retry_to=held
  note "$retry_to/$key.${retry_name#*.}" "$slots $gpus $width $product"
  rm -f "$1"
  retry_name=${retry_name#*.}
  event "$run" "A ${retry_name%.*} ${retry_name#*.}"
}

sweep() { # after crashes and reboots: what is dead is taken up again or ended; then the queue moves on
  sweep_work=
  for sweep_file in active/* retry/*; do
    [ -e "$sweep_file" ] || continue
    sweep_first='' sweep_second='' sweep_third=''
    { read -r sweep_first sweep_second sweep_third <"$sweep_file"; } 2>/dev/null
    sweep_owner=${sweep_third:-$sweep_second}
    [ -n "$sweep_owner" ] || continue
    alive "$sweep_owner" || sweep_work="$sweep_work $sweep_file"
  done
  set -- queue/*
  [ -n "$sweep_work" ] || [ -e "$1" ] || return 0
  if [ -z "$sweep_work" ]; then # something waits: is there room?
    usage
    read -r need need_gpus width product <"$1" 2>/dev/null
    [ "$free" -ge "${need:-1}" ] || return 0
  fi
  # Reading goes on where nothing can be written: who looks after the dead does so apart.
  (sweep_up) || return 0
}

sweep_up() {
  lock
  for sweep_file in $sweep_work; do
    sweep_first='' sweep_second='' sweep_third=''
    { read -r sweep_first sweep_second sweep_third <"$sweep_file"; } 2>/dev/null || continue
    sweep_owner=${sweep_third:-$sweep_second}
    alive "$sweep_owner" && continue
    case $sweep_file in
    retry/*)
      if [ "$sweep_first" -le "$(date +%s)" ]; then
        requeue "$sweep_file"
      else
        detach _retry "${sweep_file#retry/}"
      fi
      ;;
    active/*)
      name=${sweep_file#active/}
      run=${name%%.*}
      task=${name#*.}
      if [ ! -d "runs/$run" ]; then
        rm -f "$sweep_file"
      elif [ ! -d "runs/$run/$task" ]; then # never begun
        read_spec "$run"
        note "queue/$key.$task" "$slots $gpus $width $product"
        rm -f "$sweep_file"
      else
        detach _adopt "$run" "${task%.*}" "${task#*.}"
      fi
      ;;
    esac
  done
  dispatch
  unlock
  for sweep_file in tmp/*; do # left by the killed; names end in the identity's pid
    [ -e "$sweep_file" ] && [ -n "$(find "$sweep_file" -prune -mmin +720 2>/dev/null)" ] && erase "$sweep_file"
  done
}

