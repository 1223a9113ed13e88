harvest() { # what the attempt created or changed becomes runs/RUN/results/INDEX; files and bytes are counted
  harvest_work=$attempt_dir/space/work
  harvest_to=runs/$1/results/$2
  [ ! -d "$harvest_to" ] || erase "$harvest_to"
  [ -d "$harvest_work" ] || return 0
  if [ -n "$tree" ]; then
    harvest_newer=-cnewer
    find "$me" -prune -cnewer "$me" >/dev/null 2>&1 || harvest_newer=-newer
    if [ $harvest_newer = -cnewer ] && [ -z "$(find "$harvest_work" -cnewer "$attempt_dir/space/mark" 2>&1 | head -n 1)" ]; then
      # Untouched: the next job's copy.
      set -- spare/"$tree".*
      [ $# -ge 4 ] || mv "$attempt_dir/space" "spare/$tree.$$"
      return 0
    fi
    (
      cd "$harvest_work" || exit 0
      QWEX_WORK=$(pwd)
      export QWEX_WORK
      chmod u+rwx .
      find . -type d ! -perm -700 -exec chmod u+rwx {} +
      if [ $harvest_newer = -cnewer ]; then
        find . ! -type d ! -cnewer ../mark -exec rm -f {} +
      else
        find . ! -type d ! -newer ../mark -exec sh "$me" _known "$tree" {} +
      fi
      find . ! -type d ! -type f ! -type l -exec rm -f {} +
      find . ! -type d -exec sh "$me" _same "$tree" {} +
      find . -depth ! -name . -type d -exec sh "$me" _emptied "$tree" {} +
    ) 2>/dev/null
  else
    find "$harvest_work" ! -type d ! -type f ! -type l -exec rm -f {} + 2>/dev/null
  fi
  # shellcheck disable=SC2046
  set -- $(cd "$harvest_work" && find . ! -type d -exec ls -lnqd {} + | awk '{ n++; s += $5 } END { printf "%d %.0f\n", n, s }') "$@"
  files=$1 bytes=$2
  [ "$files" -eq 0 ] && [ -z "$(find "$harvest_work/." ! -name . | head -n 1)" ] && return 0
  mkdir -p "runs/$3/results" && mv "$harvest_work" "runs/$3/results/$4"
}

in_work() { # the verbs below are started by find in a work copy: this script went home, so go back
  cd "${QWEX_WORK:?}" || exit 1
  pristine=$Q/trees/$1/t
}

known() { # remove those of the named files that are in the tree (find cannot tell changed ones exactly)
  for name; do
    shift
    if [ -f "$pristine/$name" ] || [ -L "$pristine/$name" ]; then set -- "$@" "$name"; fi
  done
  [ $# -eq 0 ] || rm -f "$@"
}

same() { # remove those that were touched and yet are as they were
  for name; do
    if [ -L "$name" ]; then
      [ -L "$pristine/$name" ] && [ "$(readlink "$name"; echo .)" = "$(readlink "$pristine/$name"; echo .)" ] && rm -f "$name"
    elif [ -f "$pristine/$name" ] && [ ! -L "$pristine/$name" ] && cmp -s "$name" "$pristine/$name"; then
      same_here=$(ls -ld "$name") same_there=$(ls -ld "$pristine/$name")
      [ "${same_here%% *}" = "${same_there%% *}" ] && rm -f "$name"
    fi
  done
}

emptied() { # remove directories of the tree that hold nothing new
  for name; do
    shift
    [ -d "$pristine/$name" ] && set -- "$@" "$name"
  done
  [ $# -eq 0 ] || rmdir "$@" 2>/dev/null
}

