lock() {
  self
  lock_tries=0
  until mkdir lock 2>/dev/null; do
    [ -d lock ] || { # let go of since, or not to be made at all: only another name tells
      lock_error=$(mkdir "lock.$$" 2>&1 && rmdir "lock.$$") || no_room "${lock_error#mkdir: }"
    }
    lock_owner=
    { read -r lock_owner <lock/owner; } 2>/dev/null
    lock_tries=$((lock_tries + 1))
    if [ -n "$lock_owner" ] && ! alive "$lock_owner"; then
      break_lock "$lock_owner"
    elif [ -z "$lock_owner" ] && [ $lock_tries -gt 100 ]; then
      break_lock ''
      lock_tries=$((lock_tries - 80))
    else
      nap 0.03
    fi
    [ $lock_tries -lt 4000 ] || fail "the queue has been locked for minutes by ${lock_owner:-nobody} ($Q/lock)"
  done
  born $$
  locked=yes
  trap 'unlock' EXIT
  trap 'exit 4' HUP INT TERM PIPE
  printf '%s\n' "$identity" >lock/owner || { # nobody waits for room with the lock in his hand
    unlock
    no_room
    lock
  }
}

break_lock() { # the owner seen, $1, is dead; only one of those who notice may remove it, and only while it is still that one's
  if mkdir lock.break 2>/dev/null; then
    { printf '%s\n' "$identity" >lock.break/owner; } 2>/dev/null
    lock_again=
    { read -r lock_again <lock/owner; } 2>/dev/null
    [ "$lock_again" = "$1" ] && rm -rf lock
    rm -rf lock.break
  else
    nap 0.2
    lock_breaker=
    { read -r lock_breaker <lock.break/owner; } 2>/dev/null
    if [ -n "$lock_breaker" ]; then
      alive "$lock_breaker" || rm -rf lock.break
    else
      [ -z "$(find lock.break -prune -mmin +1 2>/dev/null)" ] || rm -rf lock.break
    fi
  fi
}

unlock() {
  [ -n "$locked" ] && rm -rf lock
  locked=
  trap - EXIT
}

no_room() { # a request that cannot write says so and stops; who answers for a job waits: for room, or for the end of all by purge
  if [ -z "$patient" ] || [ ! -e "$Q/format" ]; then
    fail "${1:-cannot write to $Q (disk full?)}"
  fi
  true >full # for those who follow: an empty file needs no room
  nap 1
}

put() { # put FILE TEXT: whole or not at all, under the name of no job and no task in the meantime
  until printf '%s\n' "$2" >"tmp/put.$$.${1##*/}" && mv -f "tmp/put.$$.${1##*/}" "$1"; do
    rm -f "tmp/put.$$.${1##*/}"
    no_room
  done
}

note() { # note FILE TEXT: a file that is read under the lock only
  until printf '%s\n' "$2" >"$1"; do
    rm -f "$1"
    no_room
  done
}

event() { # event RUN WORDS: one line of its history
  event_run=$1
  shift
  until printf '%s\n' "$*" >>"runs/$event_run/events"; do
    no_room
    printf '\n' >>"runs/$event_run/events" # ends a line that was cut short
  done
}

erase() { # remove trees, whatever the modes in them
  rm -rf "$@" 2>/dev/null && return
  chmod -R u+rwX "$@" 2>/dev/null
  rm -rf "$@"
}

