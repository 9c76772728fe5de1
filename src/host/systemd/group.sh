# The processes in a control group ($2) and in those below it, in whichever hierarchies below $1
# systemd keeps it. A group that is gone has none.
LC_ALL=C
export LC_ALL
hierarchies=0
for base in "$1" "$1/systemd" "$1/unified"; do
    [ -e "$base/cgroup.procs" ] || continue
    hierarchies=$((hierarchies + 1))
    [ -d "$base$2" ] || continue
    find "$base$2" -name cgroup.procs 2>/dev/null | while IFS= read -r file; do
        if said=$(cat "$file" 2>&1); then
            for process in $said; do echo "process $process"; done
        elif [ -e "$file" ]; then
            case $said in
            # A threaded group: its processes are listed in the group above it.
            *'not supported'* | *'No such device'*) ;;
            *) echo "failed $said" ;;
            esac
        fi
    done
done
echo "end $hierarchies"
