now() { # t: Unix seconds, with a fraction where date can
  t=$(date +%s.%N)
  case $t in *[!0-9.]* | *.) t=$(date +%s) ;; esac
}

frac=
nap() { # sleep $1 seconds, at least one where sleep takes no fraction
  if [ -z "$frac" ]; then
    frac=no
    sleep 0.001 2>/dev/null && frac=yes
  fi
  if [ $frac = yes ]; then
    sleep "$1"
  else
    nap_whole=${1%%.*}
    sleep "$((${nap_whole:-0} + 1))"
  fi
}

host=
boot=
where() { # host and boot of this machine
  [ -n "$host" ] && return
  if [ -r /proc/sys/kernel/hostname ]; then read -r host </proc/sys/kernel/hostname; else host=$(uname -n); fi
  if [ -r /proc/sys/kernel/random/boot_id ]; then read -r boot </proc/sys/kernel/random/boot_id; fi
  boot=${boot%%-*}
}

born() { # birth: what tells process $1 from later ones of that number; empty when it is gone
  birth=
  if [ -r /proc/self/stat ]; then
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 0
    born_fields "${stat##*\)}"
  else
    birth=$(ps -o stat= -o lstart= -p "$1" 2>/dev/null) || birth=
    case $birth in Z*) birth= ;; esac
    birth=$(printf '%s' "${birth#* }" | tr -cd '[:alnum:]')
  fi
}

born_fields() {
  # shellcheck disable=SC2086
  set -- $1
  case $1 in Z | X) return ;; esac
  birth=${20}
}

self() { # identity: this shell's
  where
  born $$
  identity=$$:$birth:$boot:$host
}

alive() { # is the process named $1 there? Of another machine's (a shared home) it is not known: yes
  where
  alive_pid=${1%%:*}
  alive_rest=${1#*:}
  alive_birth=${alive_rest%%:*}
  alive_rest=${alive_rest#*:}
  [ "${alive_rest#*:}" = "$host" ] || return 0
  [ "${alive_rest%%:*}" = "$boot" ] || return 1
  born "$alive_pid"
  [ -n "$birth" ] && [ "$birth" = "$alive_birth" ]
}

detach() { # this script with these words, in a session of its own, outliving the connection
  # A plain "&" comes last: it makes the job ignore INT and QUIT.
  if command -v setsid >/dev/null; then
    setsid -f sh "$me" "$@" </dev/null >/dev/null 2>>"$Q/log" && return
    (setsid sh "$me" "$@" </dev/null >/dev/null 2>>"$Q/log" &)
  elif command -v perl >/dev/null; then
    perl -e 'use POSIX "setsid"; exit if fork; setsid; exec @ARGV' sh "$me" "$@" </dev/null >/dev/null 2>>"$Q/log"
  elif command -v python3 >/dev/null; then
    python3 -c 'import os, sys
os.fork() and os._exit(0)
os.setsid()
os.execvp(sys.argv[1], sys.argv[1:])' sh "$me" "$@" </dev/null >/dev/null 2>>"$Q/log"
  else
    (
      trap '' HUP
      set -m
      sh "$me" "$@" </dev/null >/dev/null 2>>"$Q/log" &
    )
  fi
}

apart() { # run this script with these words in a session of its own and wait for it
  if command -v setsid >/dev/null; then
    setsid sh "$me" "$@"
  elif command -v perl >/dev/null; then
    perl -e 'use POSIX "setsid"; setsid; exec @ARGV' sh "$me" "$@"
  elif command -v python3 >/dev/null; then
    python3 -c 'import os, sys
os.setsid()
os.execvp(sys.argv[1], sys.argv[1:])' sh "$me" "$@"
  else
    set -m
    sh "$me" "$@" &
    wait $!
  fi
}

