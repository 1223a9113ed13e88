observe() { # <RUN lines: the history of each
  sweep
  while read -r run; do
    [ -e "runs/$run/events" ] || continue
    printf 'r %s\n' "$run"
    if [ -e "runs/$run/left" ]; then
      cat "runs/$run/events"
    else
      while IFS= read -r line; do printf '%s\n' "$line"; done <"runs/$run/events"
    fi
  done
  printf '.\n'
}

frame() { # frame KEY FILE OFFSET SIZE: what FILE has between them, as records "d KEY OFFSET LENGTH" with so many bytes after
  frame_at=$3
  while [ "$frame_at" -lt "$4" ]; do
    frame_length=$(($4 - frame_at))
    if [ $frame_length -ge 1048576 ]; then
      frame_block=1048576 frame_count=$((frame_length / 1048576))
      [ $frame_count -le 64 ] || frame_count=64
      frame_length=$((frame_count * 1048576))
    else
      frame_block=$frame_length frame_count=1
    fi
    printf 'd %s %s %s\n' "$1" $frame_at $frame_length || exit 0
    {
      # skip seeks; the second dd goes on from there
      [ "$frame_at" -eq 0 ] || dd bs=1 skip=$frame_at count=0 2>/dev/null
      dd bs=$frame_block count=$frame_count 2>/dev/null || exit 0
    } <"$2"
    frame_at=$((frame_at + frame_length))
  done
}

pause=0.02
idle=0
rest() { # between two looks: 0.02 s at first, 0.2 s when nothing comes; now and then see whether anybody still reads
  if [ "$1" = moved ]; then
    pause=0.02 idle=0
  else
    idle=$((idle + 1))
    [ $idle -lt 25 ] || pause=0.1
    [ $idle -lt 60 ] || pause=0.2
  fi
  beat=$((${beat-0} + 1))
  if [ $((beat % 25)) -eq 0 ]; then
    printf '\n' || exit 0
    sweep
    [ ! -e full ] || [ -z "$(find full -prune -mmin -1)" ] || printf 'full\n'
  fi
  nap $pause
}

watch() { # <"RUN OFFSET" lines: histories as they grow, until all have ended
  names=
  while read -r run offset; do
    [ -e "runs/$run/events" ] || continue
    names="$names runs/$run/events"
    eval "at_$run=$offset"
  done
  sweep
  while [ -n "$names" ]; do
    moved=still done=
    for name in $names; do
      run=${name#runs/}
      [ -e "runs/${run%/*}/final" ] && done="$done $name "
    done
    # shellcheck disable=SC2046,SC2086
    set -- $(ls -lnd $names 2>/dev/null)
    while [ $# -ge 9 ]; do
      run=${9#runs/}
      run=${run%/*}
      eval "at=\$at_$run"
      if [ "$at" -lt "$5" ]; then
        frame "$run" "$9" "$at" "$5"
        eval "at_$run=$5"
        moved=moved
      fi
      shift 9
    done
    [ $moved = still ] || printf 'p\n' || exit 0
    if [ -n "$done" ]; then
      left=
      for name in $names; do case $done in *" $name "*) ;; *) left="$left $name" ;; esac; done
      names=$left
      [ -n "$names" ] || break
    fi
    rest $moved
  done
  printf '.\n'
}

logs() { # logs RUN once|follow TASK|- ATTEMPT|- TAIL|- SINCE|- <"INDEX.ATTEMPT OUT ERR" lines: output as records
  cd "runs/$1" 2>/dev/null || fail "run $1 is not known here"
  while read -r key out err; do
    eval "at_${key%.*}_${key#*.}_out=$out at_${key%.*}_${key#*.}_err=$err"
  done
  run=$1 mode=$2 want_task=$3 want_attempt=$4 want_tail=$5 want_since=$6
  live='' over=' ' moved=still
  exec 3<events
  while :; do
    final=
    [ -e final ] && final=yes
    while read -r kind index attempt rest <&3; do
      case $kind in
      S)
        case $want_task in - | "$index") ;; *) continue ;; esac
        case $want_attempt in - | "$attempt") ;; *) continue ;; esac
        start_at "$index" "$attempt" out
        start_at "$index" "$attempt" err
        case " $live " in *" $index.$attempt "*) ;; *) live="$live $index.$attempt" ;; esac
        ;;
      E) over="$over$index.$attempt " ;;
      esac
    done
    for key in $live; do
      # shellcheck disable=SC2046
      set -- $(ls -lnd "$key/out" "$key/err" 2>/dev/null)
      # one task after the other when nothing is running any more: fewer looks
      while [ $# -ge 9 ]; do
        stream=${9#*/}
        eval "at=\$at_${key%.*}_${key#*.}_$stream"
        if [ "$at" -lt "$5" ]; then
          frame "${key%.*} ${key#*.} $stream" "$9" "$at" "$5"
          eval "at_${key%.*}_${key#*.}_$stream=$5"
          moved=moved
        fi
        shift 9
      done
    done
    still=
    for key in $live; do case $over in *" $key "*) ;; *) still="$still $key" ;; esac; done
    live=$still over=' '
    if [ "$mode" = once ] || [ -n "$final" ]; then
      printf '.\n'
      exit 0
    fi
    cd "$Q" || exit 3
    rest $moved
    cd "runs/$run" || exit 3
    moved=still
  done
}

start_at() { # where reading of INDEX ATTEMPT STREAM starts, if no cursor says it
  eval "at=\${at_$1_$2_$3-}"
  [ -z "$at" ] || return 0
  at=0
  file=$1.$2/$3
  if [ "$want_since" != - ]; then
    column=2
    [ $3 = out ] || column=3
    read -r began rest <"$1.$2/started"
    at=$(awk -v since="$want_since" -v began="$began" -v column=$column '
      { if ($1 <= since) at = $column } END { print at + 0 }' "$1.$2/times" 2>/dev/null)
    at=${at:-0}
    [ -z "$(awk -v a="$want_since" -v b="$(ended_at "$1.$2")" 'BEGIN { if (b != "" && b < a) print 1 }')" ] ||
      at=$(($(wc -c <"$file")))
  fi
  if [ "$want_tail" != - ]; then
    size=$(($(wc -c <"$file")))
    tail_at=$((size - $(tail -n "$want_tail" <"$file" | wc -c)))
    [ $tail_at -le "$at" ] || at=$tail_at
  fi
  eval "at_$1_$2_$3=$at"
}

ended_at() {
  { read -r code why started ended rest <"$1/end"; } 2>/dev/null && printf '%s' "$ended"
}



list() { # list RUN: names (NUL-ended) and sizes of its results
  cd "runs/$1/results" 2>/dev/null || {
    printf '.\n'
    return
  }
  QWEX_WORK=$(pwd)
  export QWEX_WORK
  find . ! -type d -exec sh "$me" _sizes - {} +
  printf '.\n'
}

sizes() { # ls sorts; the client does so too
  printf 'b %s\n' $#
  ls -lnqd "$@" | awk '{ print $5 }'
  printf '%s\0' "$@"
}

fetch() { # fetch RUN INDEX|- GZIP NAMES: a tar of results; with NAMES=names only those on stdin (NUL-ended)
  cd "runs/$1/results${2:+/$2}" 2>/dev/null || exit 0
  encode=cat
  [ "$3" = no ] || encode='gzip -1'
  if [ "$4" = names ]; then
    cat >"$Q/tmp/names.$$"
    tar --null -T "$Q/tmp/names.$$" -cf - 2>/dev/null | $encode
    rm -f "$Q/tmp/names.$$"
  elif command -v tar >/dev/null; then
    tar cf - . | $encode
  else
    pax -w . | $encode
  fi
}

