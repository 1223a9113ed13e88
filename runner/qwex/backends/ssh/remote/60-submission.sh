prepare() { # make the directory, or refuse one of a later format
  if [ -e format ]; then
    read -r format <format
    [ "$format" = $FORMAT ] || fail "$Q is kept by a newer Qwex (format $format): update Qwex here"
  else
    for entry in * .[!.]*; do # a name that is not ours: purge would delete what somebody else keeps here
      case $entry in '*' | '.[!.]*') ;;
      bin | format* | lock* | log | trees | spare | queue | held | active | retry | open | runs | tmp | full | slots | sequence | tidied) ;;
      *) fail "$Q holds other files ($entry): set the directory of this host to one of Qwex's own" ;;
      esac
    done
    mkdir -p trees spare queue held active retry open runs tmp || fail "cannot make directories in $Q"
    put format $FORMAT
  fi
}

submit() { # submit SLOTS TREE... <tar of RUN/{spec,job,secret,stdin}: take them up, all or none
  missing=
  slots_asked=$1
  shift
  for tree; do [ -d "trees/$tree" ] || missing="$missing $tree"; done
  if [ -n "$missing" ]; then
    printf 'need%s\n' "$missing"
    trees
    exit 0
  fi
  spool=tmp/submit.$$
  mkdir "$spool" || fail "cannot write to $Q"
  trap 'rm -rf "$spool"' EXIT
  (cd "$spool" && unpack) || fail "cannot write to $Q"
  [ -e "$spool/complete" ] || fail "the connection broke before everything had arrived"
  for tree; do touch "trees/$tree"; done
  sweep
  lock
  trap 'unlock; rm -rf "$spool"' EXIT
  if [ "$slots_asked" -gt 0 ]; then
    total=
    { read -r total <slots; } 2>/dev/null
    [ "$total" = "$slots_asked" ] || put slots "$slots_asked"
  else
    [ ! -e slots ] || rm -f slots
  fi
  accepted=
  for folder in "$spool"/*/; do
    run=${folder%/}
    run=${run##*/}
    [ "$run" != '*' ] || continue
    if [ -e "runs/$run/key" ]; then
      printf 'had %s\n' "$run"
    else
      [ ! -d "runs/$run" ] || erase "runs/$run"
      accepted="$accepted $run"
    fi
  done
  sequence=0
  { read -r sequence <sequence; } 2>/dev/null
  total_slots
  # First everything that can fail for want of space, then one move of all, then the queue.
  for run in $accepted; do
    sequence=$((sequence + 1))
    priority=1000000
    # shellcheck disable=SC1090
    . "./$spool/$run/spec"
    for dependency in $after; do
      parent=${dependency%:*}
      [ -d "runs/$parent" ] || [ -d "$spool/$parent" ] || {
        printf 'unknown %s %s\n' "$run" "$parent"
        exit 0
      }
    done
    key=$priority.$((1000000000 + sequence)).$run
    if [ "$slots" -gt "$total" ]; then
      printf 'large %s %s CPUs %s\n' "$run" "$slots" "$total"
      exit 0
    fi
    if [ "$gpus" -gt 0 ]; then
      taken=,
      wanted_gpus=$gpus
      pick_gpus "$wanted_gpus" "$product"
      [ -n "$picked" ] || {
        printf 'large %s %s GPUs %s\n' "$run" "$wanted_gpus" "$picked_count"
        exit 0
      }
    fi
    now_once
    printf '%s\n' "Q $t" >"$spool/$run/events" && printf '%s\n' "$todo" >"$spool/$run/todo" &&
      printf '%s\n' "$key" >"$spool/$run/key" || fail "cannot write to $Q (disk full?)"
  done
  put sequence $sequence
  if [ -n "$accepted" ]; then
    set --
    for run in $accepted; do set -- "$@" "$spool/$run"; done
    mv "$@" runs/ || fail "cannot write to $Q"
  fi
  for run in $accepted; do
    tree=
    consider_new "$run"
    printf 'ok %s\n' "$run"
  done
  release
  dispatch
  unlock
  trap 'rm -rf "$spool"' EXIT
}

t=
now_once() { [ -n "$t" ] || now; }

consider_new() {
  { [ -e "runs/$1/spec" ] && consider "$1"; } || fail "run $1 is gone"
  [ -e "runs/$1/final" ] || printf '%s\n' "$tree" >"open/$1" || fail "cannot write to $Q (disk full?)"
}

trees() { # what is here, newest first, and what unpacks
  command -v gzip >/dev/null && printf 'gzip\n'
  # shellcheck disable=SC2012,SC2045 # names are digests
  for tree in $(ls -t trees); do printf 'tree %s\n' "$tree"; done
  printf '.\n'
}

unpack() {
  if command -v tar >/dev/null; then tar xpf -; else pax -r -p p; fi
}

receive() { # receive TREE BASE GZIP END BYTES FILES <(lines for sh, END, tar of t/ stage/ after): a new tree from an old one
  part=tmp/tree.$1.$$
  if [ -d "trees/$1" ]; then
    cat >/dev/null
    printf 'ok\n'
    return
  fi
  mkdir "$part" "$part/stage" || fail "cannot write to $Q"
  trap 'erase "$part"' EXIT
  trap 'exit 4' HUP INT TERM PIPE
  if [ "$2" = - ]; then
    mkdir "$part/t"
  elif mv "spare/$2-links/t" "$part/t" 2>/dev/null; then
    rmdir "spare/$2-links"
  else
    cp -al "trees/$2/t" "$part/t" 2>/dev/null || {
      [ ! -e "$part/t" ] || erase "$part/t"
      cp -RPp "trees/$2/t" "$part/t" || fail "cannot copy the tree $2"
    }
  fi
  decode=cat
  [ "$3" = no ] || decode='gzip -dc'
  $decode | ( # a subshell, because ksh would go on in the directory
    cd "$part" || exit 3
    while IFS= read -r line; do
      [ "$line" != "$4" ] || break
      printf '%s\n' "$line"
    done >before
    if [ -s before ]; then sh ./before || exit 3; fi
    unpack || exit 3
    [ -e after ] || fail "the connection broke before everything had arrived"
    sh ./after || exit 3
  ) || fail "cannot build the workspace in $Q"
  rm -rf "$part/stage" "$part/before" "$part/after"
  printf '%s\n' "$5 $6" >"$part/meta" || fail "cannot write to $Q (disk full?)"
  mv "$part" "trees/$1" 2>/dev/null || [ -d "trees/$1" ] || fail "cannot write to $Q"
  printf 'ok\n'
  [ "$6" -eq 0 ] || detach _spare "$1"
}

