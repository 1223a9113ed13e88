forget() { # runs that have ended
  for run; do
    { [ -e "runs/$run/final" ] && erase "runs/$run"; } || [ ! -d "runs/$run" ] || fail "run $run has not ended"
  done
}

tidy() { # once a day: ended runs older than $1 days, trees that nobody needs and that are neither new nor among the newest five
  [ -z "$(find tidied -prune -mtime -1 2>/dev/null)" ] || return 0
  touch tidied
  # shellcheck disable=SC2044 # names are ids
  for run in $(find runs/* -prune -mtime "+$1" 2>/dev/null); do
    [ ! -e "$run/final" ] || erase "$run"
  done
  needed=' '
  for entry in open/*; do
    [ -e "$entry" ] || continue
    read -r tree <"$entry" && needed="$needed$tree "
  done
  tidy_seen=0
  # shellcheck disable=SC2012,SC2045 # names are digests
  for tree in $(ls -t trees); do
    tidy_seen=$((tidy_seen + 1))
    case $needed in *" $tree "*) continue ;; esac
    [ $tidy_seen -le 3 ] || for entry in spare/"$tree"[.-]*; do [ ! -d "$entry" ] || erase "$entry"; done
    [ $tidy_seen -gt 5 ] && [ -n "$(find "trees/$tree" -prune -mtime +14)" ] && {
      mv "trees/$tree" "tmp/tree.$tree.$$" && erase "tmp/tree.$tree.$$"
    }
  done
}

check() { # facts, one a line
  printf 'os %s\n' "$(uname -sr)"
  printf 'machine %s\n' "$(uname -m)"
  printf 'host %s\n' "$(uname -n)"
  printf 'shell %s\n' "${SHELL-}"
  printf 'directory %s\n' "$Q"
  for tool in tar pax gzip setsid perl python3 find awk dd cmp mkfifo nvidia-smi; do
    command -v $tool >/dev/null && printf 'tool %s\n' $tool
  done
  find "$me" -prune -cnewer "$me" >/dev/null 2>&1 && printf 'tool find-cnewer\n'
  usage
  printf 'slots %s %s\n' "$total" "$free"
  gpu_list
  [ -z "$gpu_lines" ] || printf '%s\n' "$gpu_lines" | sed 's/^/gpu /'
  df -Pk . 2>/dev/null | awk 'END { printf "disk %.0f\n", $4 * 1024 }'
  now
  printf 'time %s\n' "$t"
  for folder in queue held active retry open; do
    set -- $folder/*
    [ -e "$1" ] || shift
    printf 'count %s %s\n' $folder $#
  done
  [ -w . ] || printf 'readonly\n'
}

purge() { # end everything and remove the directory
  # What is not needed to end the rest goes first, so that this works on a full disk.
  for entry in spare/* tmp/* runs/*/final; do [ ! -e "$entry" ] || erase "${entry%/final}"; done
  lock
  for entry in open/*; do [ ! -e "$entry" ] || cancel "${entry#open/}" all; done
  release
  unlock
  purge_left=300
  while set -- active/* && [ -e "$1" ] && [ $purge_left -gt 0 ]; do
    nap 0.1
    purge_left=$((purge_left - 1))
  done
  lock
  for folder in trees spare queue held active retry open runs tmp bin; do [ ! -d $folder ] || erase $folder; done
  rm -f format full slots sequence tidied log
  unlock
  cd / && rmdir "$Q" 2>/dev/null
}

